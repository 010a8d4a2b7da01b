//go:build unix

package page

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/signalman-ci/signalman/test/harness"
)

var (
	updateShots = flag.Bool("update-screenshots", false, "take the screenshots of docs/page.md anew")
	// patience is how long a test waits for anything: far longer than it takes, so that a slow machine fails no test.
	patience = flag.Duration("patience", 90*time.Second, "how long to wait for anything")
	figures  = flag.Bool("figures", false, "measure the page with a log of 100 MB and one of a million lines")
)

// binaries is where the project's are; chromium is "" where there is none.
var binaries, chromium string

// browser is the one that all tests have tabs in.
var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := prepareAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func prepareAndRun(m *testing.M) (_ int, err error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if chromium, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if chromium == "" {
		if os.Getenv("SIGNALMAN_TEST_BROWSER") == "require" {
			return 0, errors.New("there is no chromium: scripts/test-needs installs it")
		}
		return m.Run(), nil // which skips
	}
	dir, err := os.MkdirTemp("", "signalman-page-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	binaries = dir
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.Flag("headless", "new"), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("no-sandbox", os.Geteuid() == 0), chromedp.Flag("no-first-run", true), chromedp.Flag("hide-scrollbars", false),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("font-render-hinting", "none"),
		chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.WindowSize(1280, 800),
		chromedp.WSURLReadTimeout(*patience),
	)
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	defer endAllocator()
	var end context.CancelFunc
	browser, end = chromedp.NewContext(allocator)
	defer end()
	if err := chromedp.Do(browser); err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", chromium, err)
	}
	return m.Run(), nil
}
