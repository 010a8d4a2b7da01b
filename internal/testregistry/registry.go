// Package testregistry gives tests an image registry on loopback, with and without a password, and something that answers like the
// two services of AWS that hand one out. Nothing but tests imports it.
package testregistry

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// User and Password open a registry that is started with a password.
const (
	User     = "builder"
	Password = "correct-horse-battery"
)

// htpasswd is what `htpasswd -nbB` makes of User and Password.
//
//nolint:gosec // it opens registries of tests only
const htpasswd = "builder:$2y$05$BKFbaz9Br6CjMwUP42cSN.mvOMKSEZrF9uPtMtuu0NJJ18GcVG4/2\n"

// Registry is a running one. It ends with the test.
type Registry struct {
	// Host is the address that the names of its images begin with. Engines speak plain HTTP to registries on 127.0.0.0/8.
	Host     string
	password bool
}

// Start runs Debian's docker-registry without a password. Where it isn't installed the test is skipped, or fails if
// SIGNALMAN_TEST_REGISTRY is "require".
func Start(t testing.TB) *Registry {
	t.Helper()
	return start(t, exec.Command, "127.0.0.1", "")
}

// StartWithPassword is Start for a registry that lets only User in.
func StartWithPassword(t testing.TB) *Registry {
	t.Helper()
	return StartElsewhere(t, exec.Command, "127.0.0.1")
}

// StartElsewhere is StartWithPassword in another network of this host: command makes a command that runs there, as exec.Command does
// here, and ip is an address there that this process can reach.
func StartElsewhere(t testing.TB, command func(name string, args ...string) *exec.Cmd, ip string) *Registry {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, command, ip, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file))
}

// StartAt is Start on another address of this host, to which engines speak HTTPS only.
func StartAt(t testing.TB, ip string) *Registry {
	t.Helper()
	return start(t, exec.Command, ip, "")
}

var listening = regexp.MustCompile(`listening on ([^ "\\,]+)`)

func start(t testing.TB, command func(string, ...string) *exec.Cmd, ip, auth string) *Registry {
	t.Helper()
	binary, err := exec.LookPath("docker-registry")
	if err != nil {
		Need(t, "no docker-registry here: run scripts/test-needs as root, it installs Debian's")
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: info, formatter: json}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n%s",
		filepath.Join(dir, "data"), net.JoinHostPort(ip, "0"), auth)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(binary, "serve", file)
	// Without a proxy and whatever else its environment could set.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = log.Close()
	})
	// It picks a free port itself, and says which.
	deadline := time.After(90 * time.Second)
	for {
		text, _ := os.ReadFile(log.Name())
		if m := listening.FindSubmatch(text); m != nil {
			return &Registry{Host: string(m[1]), password: auth != ""}
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry has ended: %s", text)
		case <-deadline:
			t.Fatalf("docker-registry doesn't come up: %s", text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Need skips the test for what a machine lacks, unless the run is to have all of it.
func Need(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("SIGNALMAN_TEST_REGISTRY") == "require" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Image names what a repository and a tag are called to pull them from here.
func (r *Registry) Image(repositoryAndTag string) string { return r.Host + "/" + repositoryAndTag }

// Push stores an image for this machine's architecture, made of layers that are uncompressed tar files, lowest first. name is a
// repository with a tag. It gives the name to pull, and the image's digest.
func (r *Registry) Push(t testing.TB, name string, layers ...[]byte) (image, digest string) {
	t.Helper()
	repository, tag, _ := strings.Cut(name, ":")
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Size      int    `json:"size"`
		Digest    string `json:"digest"`
	}
	const types = "application/vnd.docker."
	var blobs []descriptor
	var ids []string
	for _, layer := range layers {
		blobs = append(blobs, descriptor{types + "image.rootfs.diff.tar", len(layer), r.upload(t, repository, layer)})
		ids = append(ids, Digest(layer))
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Cmd": []string{"/bin/sh"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types + "distribution.manifest.v2+json", "layers": blobs,
		"config": descriptor{types + "container.image.v1+json", len(config), r.upload(t, repository, config)},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.send(t, http.MethodPut, "http://"+r.Host+"/v2/"+repository+"/manifests/"+tag, types+"distribution.manifest.v2+json", manifest)
	return r.Image(name), Digest(manifest)
}

// upload stores a blob and gives its digest.
func (r *Registry) upload(t testing.TB, repository string, blob []byte) string {
	t.Helper()
	where := r.send(t, http.MethodPost, "http://"+r.Host+"/v2/"+repository+"/blobs/uploads/", "", nil)
	glue := "?"
	if strings.Contains(where, "?") {
		glue = "&"
	}
	r.send(t, http.MethodPut, where+glue+"digest="+Digest(blob), "application/octet-stream", blob)
	return Digest(blob)
}

// send gives the answer's Location.
func (r *Registry) send(t testing.TB, method, url, contentType string, body []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if r.password {
		req.SetBasicAuth(User, Password)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatalf("cannot push: %v", err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		t.Fatalf("cannot push: %s %s: %s %s", method, url, resp.Status, text)
	}
	return resp.Header.Get("Location")
}

// Digest is what a registry calls a layer.
func Digest(data []byte) string {
	digest := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(digest[:])
}

// Busybox is a layer with a static busybox as /bin/sh and the like. Where there is none the test is skipped, as by Start.
func Busybox(t testing.TB) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil || !static(path) {
		Need(t, "no busybox here: run scripts/test-needs as root, it installs Debian's busybox-static")
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries := []tar.Header{{Name: "bin/busybox", Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}}
	for _, name := range []string{"sh", "echo", "cat", "sleep", "ls", "env"} {
		entries = append(entries, tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink})
	}
	return layer(t, content, entries...)
}

// static tells whether a program needs no dynamic linker.
func static(path string) bool {
	program, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer program.Close()
	return !slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Noise is a layer with size bytes that can't be compressed and that no engine has seen before.
func Noise(t testing.TB, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content)
	return layer(t, content, tar.Header{Name: "noise-" + rand.Text(), Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg})
}

// layer packs entries; content belongs to the first.
func layer(t testing.TB, content []byte, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i, entry := range entries {
		if err := w.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
