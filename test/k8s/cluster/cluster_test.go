package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestTheVersionIsTheOneInGoMod(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), kubernetes+" "+version+"\n") {
		t.Errorf("go.mod has another version of %s than %s", kubernetes, version)
	}
}

func TestCertificatesAreForTheirUse(t *testing.T) {
	authority, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority.certificate) {
		t.Fatal("the authority's certificate can't be read")
	}
	for _, id := range identities {
		certificate, key, err := authority.issue(id.user, id.group, id.addresses)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		if pair.Leaf.Subject.CommonName != id.user || (id.group != "" && pair.Leaf.Subject.Organization[0] != id.group) {
			t.Errorf("%s is for %s", id.file, pair.Leaf.Subject)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s is no client: %v", id.file, err)
		}
		for _, address := range id.addresses {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: address}); err != nil {
				t.Errorf("%s does not serve %s: %v", id.file, address, err)
			}
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots})
		if serves := err == nil; serves != (len(id.addresses) > 0) {
			t.Errorf("%s serves: %v", id.file, serves)
		}
	}
}

func TestOnlyTheProcessThatIsMeantGetsASignal(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	id, ok := identify(cmd.Process.Pid)
	if !ok || !id.alive() {
		t.Fatalf("it is not seen: %v", id)
	}
	for name, other := range map[string]identity{
		"another start": {PID: id.PID, Start: id.Start + "1", Boot: id.Boot},
		"another boot":  {PID: id.PID, Start: id.Start, Boot: "an earlier one"},
		"no process":    {PID: 0, Start: id.Start, Boot: id.Boot},
		"init":          {PID: 1, Start: id.Start, Boot: id.Boot},
		"all":           {PID: -1, Start: id.Start, Boot: id.Boot},
	} {
		if sent, err := other.signal(syscall.SIGKILL); sent || err != nil {
			t.Errorf("%s: %v %v", name, sent, err)
		}
	}
	if sent, err := id.signal(syscall.SIGTERM); !sent || err != nil {
		t.Fatalf("%v %v", sent, err)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended otherwise: %v", err)
	}
	if sent, err := id.signal(syscall.SIGTERM); sent || err != nil || id.alive() {
		t.Errorf("once it is gone: %v %v", sent, err)
	}
}

func TestMounts(t *testing.T) {
	got := parseMounts("24 1 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"99 24 0:5 / /var/lib/signalman-k8s/a\\040b rw shared:1 master:2 - tmpfs tmpfs rw\n" +
		"nonsense\n")
	want := []mount{{"/sys/fs/cgroup/memory", "cgroup"}, {"/var/lib/signalman-k8s/a b", "tmpfs"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestFullNames(t *testing.T) {
	for name, want := range map[string]string{
		"try":                 "docker.io/library/try:latest",
		"try:1":               "docker.io/library/try:1",
		"team/try:1":          "docker.io/team/try:1",
		"localhost/try":       "localhost/try:latest",
		"10.250.0.2:5000/try": "10.250.0.2:5000/try:latest",
		"a.test/b@sha256:12":  "a.test/b@sha256:12",
	} {
		if got, err := fullName(name); got != want || err != nil {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	if _, err := fullName(""); err == nil {
		t.Error("no name is a name")
	}
}

func TestAnArchiveHoldsWhatItsManifestNames(t *testing.T) {
	archive, err := dockerArchive("localhost/x:1", "x", []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || manifest[0].RepoTags[0] != "localhost/x:1" || files[manifest[0].Config] == nil {
		t.Fatalf("%v", manifest)
	}
	if layer := untar(t, files[manifest[0].Layers[0]]); string(layer["x"]) != "program" {
		t.Errorf("%v", layer)
	}
}

func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
