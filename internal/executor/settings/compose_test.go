package settings

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestComposeThereAndBack(t *testing.T) {
	for name, c := range map[string]Compose{
		"default": DefaultCompose(),
		"all set": {PullPolicy: PullNever, AllowedImages: []*regexp.Regexp{regexp.MustCompile("^a\n,b$"), regexp.MustCompile("c")},
			ExposeKVM: true, Files: []File{{"/a b:c", "/d"}}, FailOnMissingFiles: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ComposeFrom(c.Extra())
			require.NoError(t, err)
			assert.Equal(t, c, got)
		})
	}
}

func TestComposeFromNothing(t *testing.T) {
	got, err := ComposeFrom(nil)
	require.NoError(t, err)
	assert.Equal(t, DefaultCompose(), got)
	_, err = ComposeFrom(map[string]string{"compose": `{"allowed-images": ["("]}`})
	require.ErrorContains(t, err, "cannot make sense of the settings for jobs in containers")
}
