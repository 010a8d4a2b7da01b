package page

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(method, path string) *http.Response {
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func TestHandler(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html", "/page/style.css": "text/css", "/page/app.js": "text/javascript", "/page/icon.svg": "image/svg+xml",
	} {
		resp := get(http.MethodGet, path)
		assert.Equal(t, http.StatusOK, resp.StatusCode, path)
		assert.Contains(t, resp.Header.Get("Content-Type"), kind, path)
	}
	for _, path := range []string{"/page/", "/page/none.js", "/page/../page.go", "/page.html", "/assets/app.js", "/page/assets/app.js"} {
		assert.NotEqual(t, http.StatusOK, get(http.MethodGet, path).StatusCode, path)
	}
	assert.Equal(t, http.StatusMethodNotAllowed, get(http.MethodPost, "/").StatusCode)
}

// The page keeps within what its policy allows anyway, so that nothing of it fails unseen, and never makes HTML of a text.
func TestAssets(t *testing.T) {
	never := map[string]*regexp.Regexp{
		"HTML from text":    regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|createContextualFragment|\beval\(|new Function`),
		"an address":        regexp.MustCompile(`(https?:)?//[a-z0-9-]+\.[a-z]`),
		"an inline style":   regexp.MustCompile(`<[a-z][^>]*\sstyle=|<style`),
		"an inline script":  regexp.MustCompile(`<script(>|\s+type="module">)|<[a-z][^>]*\son[a-z]+=`),
		"a style attribute": regexp.MustCompile(`setAttribute\("style"|[{,]\s*style:\s*["\x60]`),
	}
	size := 0
	require.NoError(t, fs.WalkDir(embedded, "assets", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := embedded.ReadFile(path)
		require.NoError(t, err)
		size += len(raw)
		for what, pattern := range never {
			for _, found := range pattern.FindAllString(string(raw), -1) {
				if found != "http://www.w" { // the namespace of SVG
					t.Errorf("%s has %s: %s", path, what, found)
				}
			}
		}
		return nil
	}))
	assert.Less(t, size, 150<<10, "bytes")
}
