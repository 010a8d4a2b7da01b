//go:build unix

package page

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// tools are programs for jobs that look like jobs.
var tools = map[string]string{
	"checkout": `printf 'Cloning into shop…\nHEAD is now at \033[33m9f3c2ab\033[0m fix(cart): round totals once\n'`,
	"cache":    `printf 'Restoring node_modules from \033[36mcache-main-4411\033[0m … 86 MB\n'`,
	"npm": `case "$*" in
ci) for i in 1 2 3 4 5 6 7 8; do printf '\r\033[36m%3d%%\033[0m [%-24s] packages' $((i*100/8)) $(printf '#%.0s' $(seq $((i*3)))); sleep 0.02; done
	printf '\nadded 412 packages in 2s\n\033[33mwarning\033[0m left-pad@1.3.0 is deprecated: use String.prototype.padStart()\n' ;;
test) for t in cart/total:41 cart/items:12 cart/coupon:38 checkout/address:77 checkout/ship:54; do printf '\033[30;42m PASS \033[0m %s.test.js \033[2m(%s ms)\033[0m\n' ${t%:*} ${t#*:}; done
	printf '\n\033[32m38 passed\033[0m, \033[4m38 total\033[0m\n' ;;
"run integration") printf '\033[30;42m PASS \033[0m search/index.test.js \033[2m(312 ms)\033[0m\n\033[97;41m FAIL \033[0m checkout/pay.test.js \033[38;5;208m(1.9 s)\033[0m\n\n  \033[1;31m● checkout › pays once\033[0m\n\n    expect(charges).toHaveLength(\033[32m1\033[0m)\n    Received length: \033[31m2\033[0m\n\n      \033[2m86 |   await pay(cart);\033[0m\n    \033[1;31m>\033[0m 88 |   expect(charges).toHaveLength(1);\n         \033[2m|\033[0m                   \033[31m^\033[0m\n'; exit 1 ;;
*) for i in $(seq 1 12); do printf '\033[2m[%02d/40]\033[0m compile \033[36msrc/%s\033[0m\n' $i module_$i.ts; sleep 0.02; done; until [ -e "$END" ]; do sleep 0.05; done ;;
esac`,
}

// The screenshots of docs/page.md: light and dark, wide and narrow.
func TestScreenshots(t *testing.T) {
	if !*updateShots {
		t.Skip("run with -update-screenshots")
	}
	h := newHost(t, "concurrency = 3\nenv-vars = [\"REGION=eu\"]\n")
	for name, script := range tools {
		require.NoError(t, os.WriteFile(h.path("bin/"+name), []byte("#!/bin/bash\nEND="+h.path("end")+"\n"+script+"\n"), 0o755))
	}
	setUp := []string{"checkout", "cache restore", "npm ci"}
	for _, job := range []struct{ name, command string }{
		{"lint", "true"}, {"unit tests", "npm test"}, {"docs", "true"}, {"integration tests", "npm run integration"}, {"deploy preview", "true"},
	} {
		h.finished(h.submit(job.name, append(setUp[:len(setUp):len(setUp)], "npm test", job.command)...))
	}
	build := h.submit("release build", append(setUp, "npm run build")...)
	h.submit("nightly end-to-end", "echo started", h.until("end"))
	h.config("concurrency = 3\nenv-vars = [\"REGION=us\"]\nname = \"unused\"\njobs.keep = \"72h\"\nadmission.min-disk = \"1GiB\"\n")
	tb := h.signedIn("")
	shot := func(name string, width, height int64, theme, path, wait, text string) {
		tb.looks(width, height, theme)
		tb.goTo(path)
		tb.seeText(wait, text)
		eval[bool](tb, "new Promise((r) => setTimeout(() => r(true), 400))")
		raw := do(tb, chromedp.CaptureScreenshot())
		require.NoError(t, os.WriteFile(filepath.Join("..", "..", "docs", "page", name+".png"), small(t, raw), 0o644))
	}
	require.NoError(t, os.MkdirAll(filepath.Join("..", "..", "docs", "page"), 0o755))
	shot("slots-light", 1180, 640, "light", "#/", ".job-link", "release build")
	shot("slots-dark", 1180, 640, "dark", "#/", ".job-link", "release build")
	shot("log-light", 1180, 640, "light", "#/jobs/"+build, ".l", "module_12")
	shot("log-phone", 360, 740, "dark", "#/jobs/"+build, ".l", "module_12")
	shot("slots-phone", 360, 740, "light", "#/", ".job-link", "release build")
	shot("config-dark", 1180, 640, "dark", "#/config", ".changes", "env-vars")
	shot("history-light", 1180, 640, "light", "#/jobs", ".job-link", "integration tests")
	tb.click(".job-link", "integration tests")
	tb.seeText(".l", "charges")
	shot("log-dark", 1180, 640, "dark", eval[string](tb, "location.hash"), ".l", "charges")
	h.write("end", "")
}

// small makes a picture one of at most 256 colours: those that it has most of, and for the others the nearest.
func small(t *testing.T, raw []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(raw))
	require.NoError(t, err)
	bounds, count := full.Bounds(), map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	var palette color.Palette
	for _, c := range colors { // one for those that look the same
		if len(palette) < 256 && (len(palette) == 0 || distance(c, palette[palette.Index(c)]) > 150) {
			palette = append(palette, c)
		}
	}
	index := map[color.RGBA]uint8{}
	for _, c := range colors {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			out.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out))
	return b.Bytes()
}

func distance(a color.RGBA, b color.Color) int {
	o := color.RGBAModel.Convert(b).(color.RGBA)
	r, g, bl := int(a.R)-int(o.R), int(a.G)-int(o.G), int(a.B)-int(o.B)
	return r*r + g*g + bl*bl
}
