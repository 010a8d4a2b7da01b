// Package page is the operator's page: plain files that the binary holds, which a browser reads from the admin API's own address. They
// hold no data, so they need no token: what the page shows it asks the API for.
package page

import (
	"embed"
	"io/fs"
	"net/http"
)

// Prefix is where the page's files are; the page itself is at "/".
const Prefix = "/page/"

//go:embed assets
var embedded embed.FS

// Handler serves the page at "/" and its files below Prefix. Who mounts it sets the headers that keep other pages out: the files need
// no more than `default-src 'self'`.
func Handler() http.Handler {
	files, err := fs.Sub(embedded, "assets")
	if err != nil {
		return http.NotFoundHandler() // the name is a constant: it can't fail
	}
	static := http.StripPrefix(Prefix, http.FileServerFS(files))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "page.html")
	})
	mux.HandleFunc("GET "+Prefix+"{file}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("file") == "" { // no lists
			http.NotFound(w, r)
			return
		}
		static.ServeHTTP(w, r)
	})
	return mux
}
