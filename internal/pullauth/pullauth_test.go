package pullauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// creds makes credentials of a kind, with variables NAME=VALUE.
func creds(kind string, env ...string) protocol.PullCredentials {
	c := protocol.PullCredentials{Env: []protocol.EnvVar{{Name: kindVariable, Value: kind}}}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		c.Env = append(c.Env, protocol.EnvVar{Name: name, Value: value})
	}
	return c
}

func generic(url, user, password string) protocol.PullCredentials {
	return creds("GenericDocker", "DOCKER_URL="+url, "DOCKER_USERNAME="+user, "DOCKER_PASSWORD="+password)
}

func gcr(host, key string) protocol.PullCredentials {
	c := creds("GCR", "GCR_HOSTNAME="+host)
	c.Files = []protocol.File{{Path: "/tmp/gcr/keyfile.json", Content: []byte(key)}}
	return c
}

// offline resolves without AWS.
func offline(t *testing.T, credentials ...protocol.PullCredentials) Keyring {
	t.Helper()
	keyring, err := Resolve(t.Context(), credentials, Options{Getenv: func(string) string { return "" }})
	require.NoError(t, err)
	return keyring
}

// decode gives an X-Registry-Auth as USER:PASSWORD@SERVER.
func decode(t *testing.T, encoded string) string {
	t.Helper()
	data, err := base64.URLEncoding.DecodeString(encoded)
	require.NoError(t, err)
	var auth map[string]string
	require.NoError(t, json.Unmarshal(data, &auth))
	require.Len(t, auth, 3)
	return auth["username"] + ":" + auth["password"] + "@" + auth["serveraddress"]
}

func TestFor(t *testing.T) {
	const hub = "https://index.docker.io/v1/"
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	dockerHub := creds("DockerHub", "DOCKERHUB_USERNAME=bob", "DOCKERHUB_PASSWORD=p")
	for name, c := range map[string]struct {
		credentials []protocol.PullCredentials
		image, want string // an empty want: no credentials
	}{
		"docker hub, official":         {[]protocol.PullCredentials{dockerHub}, "debian", "bob:p@" + hub},
		"docker hub, a team's":         {[]protocol.PullCredentials{dockerHub}, "team/app:1", "bob:p@" + hub},
		"docker hub, in full":          {[]protocol.PullCredentials{dockerHub}, "docker.io/team/app", "bob:p@" + hub},
		"docker hub, its old name":     {[]protocol.PullCredentials{dockerHub}, "index.docker.io/team/app", "bob:p@" + hub},
		"docker hub, another registry": {[]protocol.PullCredentials{dockerHub}, "registry.example/debian", ""},
		"docker hub as generic":        {[]protocol.PullCredentials{generic("https://index.docker.io/v1/", "bob", "p")}, "debian", "bob:p@" + hub},
		"plain host":                   {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example/a/b:1", "u:p@registry.example"},
		"not docker hub":               {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "debian", ""},
		"with a port":                  {[]protocol.PullCredentials{generic("registry.example:5000", "u", "p")}, "registry.example:5000/a:1", "u:p@registry.example:5000"},
		"another port":                 {[]protocol.PullCredentials{generic("registry.example:5000", "u", "p")}, "registry.example/a:1", ""},
		"no port":                      {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example:5000/a:1", ""},
		"the port of https":            {[]protocol.PullCredentials{generic("https://registry.example:443/", "u", "p")}, "registry.example/a", "u:p@registry.example"},
		"the port of https in image":   {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example:443/a", "u:p@registry.example"},
		"a subdomain":                  {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "evil.registry.example/a", ""},
		"a longer domain":              {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example.evil/a", ""},
		"with a digest":                {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example/a" + digest, "u:p@registry.example"},
		"with tag and digest":          {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "registry.example/a:1" + digest, "u:p@registry.example"},
		"localhost":                    {[]protocol.PullCredentials{generic("localhost", "u", "p")}, "localhost/a", "u:p@localhost"},
		"an address":                   {[]protocol.PullCredentials{generic("http://127.0.0.1:5000", "u", "p")}, "127.0.0.1:5000/a", "u:p@127.0.0.1:5000"},
		"an IPv6 address":              {[]protocol.PullCredentials{generic("[::1]:5000", "u", "p")}, "[::1]:5000/a", "u:p@[::1]:5000"},
		"https":                        {[]protocol.PullCredentials{generic("https://registry.example", "u", "p")}, "registry.example/a", "u:p@registry.example"},
		"upper case":                   {[]protocol.PullCredentials{generic("HTTPS://Registry.Example", "u", "p")}, "registry.example/a", "u:p@registry.example"},
		"upper case in image":          {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "Registry.Example/a", "u:p@registry.example"},
		"the path of the API":          {[]protocol.PullCredentials{generic("https://registry.example/v2/", "u", "p")}, "registry.example/a", "u:p@registry.example"},
		"a path that fits":             {[]protocol.PullCredentials{generic("https://registry.example/team/", "u", "p")}, "registry.example/team/a", "u:p@registry.example"},
		"a path that doesn't fit":      {[]protocol.PullCredentials{generic("registry.example/team", "u", "p")}, "registry.example/other", "u:p@registry.example"},
		"a user in the address":        {[]protocol.PullCredentials{generic("https://x:y@registry.example", "u", "p")}, "registry.example/a", "u:p@registry.example"},
		"white space":                  {[]protocol.PullCredentials{generic(" registry.example\n", "u\n", "p p \r\n")}, "registry.example/a", "u:p p @registry.example"},
		"the last one wins":            {[]protocol.PullCredentials{generic("registry.example", "a", "1"), generic("registry.example", "b", "2")}, "registry.example/a", "b:2@registry.example"},
		"the longest path wins": {[]protocol.PullCredentials{generic("registry.example/t/u", "a", "1"), generic("registry.example/t", "b", "2"), generic("registry.example", "c", "3")},
			"registry.example/t/u/x", "a:1@registry.example"},
		"paths end at a slash": {[]protocol.PullCredentials{generic("registry.example", "c", "3"), generic("registry.example/team", "a", "1"), generic("registry.example", "c", "3")},
			"registry.example/teams/x", "c:3@registry.example"},
		"the last of a variable's values": {[]protocol.PullCredentials{creds("GenericDocker", "DOCKER_URL=registry.example", "DOCKER_USERNAME=a", "DOCKER_PASSWORD=p", "DOCKER_USERNAME=b")},
			"registry.example/x", "b:p@registry.example"},
		"gcr":                     {[]protocol.PullCredentials{gcr("eu.gcr.example", `{"private_key":"k"}`+"\n")}, "eu.gcr.example/project/a", `_json_key:{"private_key":"k"}@eu.gcr.example`},
		"gcr with a scheme":       {[]protocol.PullCredentials{gcr("https://eu.gcr.example", `{}`)}, "eu.gcr.example/project/a", `_json_key:{}@eu.gcr.example`},
		"no credentials":          {nil, "debian", ""},
		"no name of an image":     {[]protocol.PullCredentials{dockerHub}, "Debian", ""},
		"no image":                {[]protocol.PullCredentials{dockerHub}, "", ""},
		"something with an @":     {[]protocol.PullCredentials{generic("registry.example", "u", "p")}, "evil@registry.example/a", ""},
		"another kind beside it":  {[]protocol.PullCredentials{dockerHub, generic("registry.example", "u", "p")}, "app", "bob:p@" + hub},
		"any bytes in a password": {[]protocol.PullCredentials{generic("registry.example", "u", `"\<>&ü?~`)}, "registry.example/a", `u:"\<>&ü?~@registry.example`},
	} {
		t.Run(name, func(t *testing.T) {
			keyring := offline(t, c.credentials...)
			encoded, ok := keyring.For(c.image)
			_, known := keyring.User(c.image)
			assert.Equal(t, ok, known)
			if c.want == "" {
				assert.False(t, ok)
				assert.Empty(t, encoded)
				return
			}
			require.True(t, ok)
			assert.Equal(t, c.want, decode(t, encoded))
		})
	}
}

func TestWrongCredentials(t *testing.T) {
	const kinds = "it has to be DockerHub, GenericDocker, AWS_ECR or GCR"
	const where = "in the secret that these credentials come from"
	secrets := []string{"s3cret", "b0b", "kind0", "key1d", "reg10n"}
	for name, c := range map[string]struct {
		credentials []protocol.PullCredentials
		want        string
	}{
		"no kind":          {[]protocol.PullCredentials{{}}, "cannot use the image pull credentials: DOCKER_CREDENTIAL_TYPE is missing: " + kinds},
		"another kind":     {[]protocol.PullCredentials{creds("kind0")}, "cannot use the image pull credentials: DOCKER_CREDENTIAL_TYPE is of no kind that is known: " + kinds},
		"docker hub":       {[]protocol.PullCredentials{creds("DockerHub", "DOCKERHUB_USERNAME=b0b")}, "cannot use the image pull credentials (DockerHub): DOCKERHUB_PASSWORD is missing or empty: set it " + where},
		"empty is missing": {[]protocol.PullCredentials{creds("DockerHub", "DOCKERHUB_USERNAME= ", "DOCKERHUB_PASSWORD=s3cret")}, "cannot use the image pull credentials (DockerHub): DOCKERHUB_USERNAME is missing or empty: set it " + where},
		"all of it":        {[]protocol.PullCredentials{creds("GenericDocker")}, "cannot use the image pull credentials (GenericDocker): DOCKER_URL, DOCKER_USERNAME and DOCKER_PASSWORD are missing or empty: set them " + where},
		"no registry": {[]protocol.PullCredentials{generic("b0b", "b0b", "s3cret")},
			"cannot use the image pull credentials (GenericDocker): DOCKER_URL has to be the registry as images name it, such as registry.example or registry.example:5000"},
		"an address of nothing": {[]protocol.PullCredentials{generic("https:///s3cret", "b0b", "s3cret")}, "cannot use the image pull credentials (GenericDocker): DOCKER_URL has to be the registry as images name it, such as registry.example or registry.example:5000"},
		"gcr without a file":    {[]protocol.PullCredentials{creds("GCR", "GCR_HOSTNAME=gcr.example")}, "cannot use the image pull credentials (GCR): the file /tmp/gcr/keyfile.json is missing or empty: it has to hold the key of a service account in JSON"},
		"gcr without JSON":      {[]protocol.PullCredentials{gcr("gcr.example", "s3cret")}, "cannot use the image pull credentials (GCR): the file /tmp/gcr/keyfile.json isn't JSON: it has to hold the key of a service account as it was downloaded"},
		"gcr without a host":    {[]protocol.PullCredentials{gcr("", "{}")}, "cannot use the image pull credentials (GCR): GCR_HOSTNAME is missing or empty: set it " + where},
		"aws": {[]protocol.PullCredentials{creds("AWS_ECR", "AWS_ACCESS_KEY_ID=key1d")},
			"cannot use the image pull credentials (AWS_ECR): AWS_REGION and AWS_SECRET_ACCESS_KEY are missing or empty: set them " + where},
		"aws, region": {[]protocol.PullCredentials{creds("AWS_ECR", "AWS_REGION=reg10n.evil.example/", "AWS_ACCESS_KEY_ID=key1d", "AWS_SECRET_ACCESS_KEY=s3cret")},
			"cannot use the image pull credentials (AWS_ECR): AWS_REGION has to be a region's code, such as eu-west-1"},
		"aws, account": {[]protocol.PullCredentials{creds("AWS_ECR", "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=key1d", "AWS_SECRET_ACCESS_KEY=s3cret", "AWS_ACCOUNT_ID=b0b")},
			"cannot use the image pull credentials (AWS_ECR): AWS_ACCOUNT_ID has to be the 12 digits of an account, or be left out"},
		"two of three": {[]protocol.PullCredentials{creds("kind0"), generic("registry.example", "b0b", "s3cret"), gcr("", "{}")},
			"cannot use the image pull credentials 1 of 3: DOCKER_CREDENTIAL_TYPE is of no kind that is known: " + kinds + "\n" +
				"cannot use the image pull credentials 3 of 3 (GCR): GCR_HOSTNAME is missing or empty: set it " + where},
	} {
		t.Run(name, func(t *testing.T) {
			keyring, err := Resolve(t.Context(), c.credentials, Options{})
			require.EqualError(t, err, c.want)
			assert.Empty(t, keyring.Describe())
			for _, secret := range secrets {
				assert.NotContains(t, err.Error(), secret)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	keyring := offline(t,
		creds("DockerHub", "DOCKERHUB_USERNAME=bob", "DOCKERHUB_PASSWORD=s3cret"),
		generic("https://s3cret:s3cret@registry.example:5000/team/?s3cret", "al\x1b[31mice", "s3cret"),
		gcr("eu.gcr.example", `{"private_key":"s3cret"}`))
	assert.Equal(t, []string{
		"docker.io: user bob",
		`registry.example:5000/team: user "al\x1b[31mice"`,
		"eu.gcr.example: user _json_key",
	}, keyring.Describe())
}

func TestKeyringIsNotPrinted(t *testing.T) {
	keyring := offline(t, generic("registry.example", "bob", "s3cret"))
	var out bytes.Buffer
	hclog.New(&hclog.LoggerOptions{Output: &out}).Error("it", "keyring", keyring, "pointer", &keyring)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, verb, keyring)
		fmt.Fprintf(&out, verb, &keyring)
		fmt.Fprintf(&out, verb, []any{map[string]any{"a": keyring}})
	}
	data, err := json.Marshal(map[string]any{"keyring": keyring})
	require.NoError(t, err)
	out.Write(data)
	assert.NotContains(t, out.String(), "s3cret")
	assert.NotContains(t, out.String(), "733363726574") // %x of it
	assert.Contains(t, out.String(), "keyring of 1")
}

func FuzzParseRegistry(f *testing.F) {
	for _, s := range []string{"registry.example", "https://a:b@registry.example:443/v2/x?y", "[::1]:5000", "localhost/", "//", "a", "x://y@@z.example", "é.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		host, path, ok := parseRegistry(address)
		if !ok {
			return
		}
		require.NotContains(t, host, "@")
		require.NotContains(t, host, "/")
		require.NotContains(t, path, "?")
		again, _, ok := parseRegistry(host)
		if !ok { // a name without a dot, which was told from a folder of Docker Hub by its upper case or its port
			require.NotContains(t, host, ".")
			return
		}
		require.Equal(t, host, again, "a host names itself")
		keyring := Keyring{logins: []login{{host: host, user: "u", password: "p"}}}
		_, found := keyring.For(host + "/team/app:1")
		require.True(t, found, host)
	})
}
