// Package page tests the operator's page in a real browser, Debian's chromium, against a real supervisor with a hub for tests. It takes the
// screenshots of docs/page.md as well: go test ./test/page -update-screenshots
package page
