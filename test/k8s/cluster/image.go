package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Load puts an image of this machine's Docker engine into the node, under the name by which pods ask for it.
func (c *Cluster) Load(ctx context.Context, image string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	save := exec.CommandContext(ctx, "docker", "save", image)
	var stderr strings.Builder
	save.Stderr = &stderr
	archive, err := save.StdoutPipe()
	if err != nil {
		return err
	}
	if err := save.Start(); err != nil {
		return fmt.Errorf("cannot get %s from the Docker engine: %w", image, err)
	}
	err = importImage(ctx, archive)
	_ = archive.Close() // so that it ends, if it is not read to its end
	if saveErr := save.Wait(); saveErr != nil && stderr.Len() > 0 {
		return fmt.Errorf("cannot get %s from the Docker engine: %w: %s", image, saveErr, strings.TrimSpace(stderr.String()))
	}
	return err
}

// Unload removes an image from the node; one that isn't there is no error. Pods that run with it go on.
func (c *Cluster) Unload(ctx context.Context, image string) error {
	name, err := fullName(image)
	if err != nil {
		return err
	}
	_, err = ctr(ctx, nil, "images", "remove", "--sync", name)
	return err
}

// fullName is what a node calls an image: with a registry, and with a tag.
func fullName(image string) (string, error) {
	if image == "" {
		return "", errors.New("no image is named")
	}
	first, _, inFolder := strings.Cut(image, "/")
	switch {
	case !inFolder:
		image = "docker.io/library/" + image
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		image = "docker.io/" + image
	}
	if !strings.ContainsAny(image[strings.LastIndexByte(image, '/'):], ":@") {
		image += ":latest"
	}
	return image, nil
}

// importImage reads a Docker archive.
func importImage(ctx context.Context, archive io.Reader) error {
	_, err := ctr(ctx, archive, "images", "import", "-")
	return err
}

func ctr(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return run(ctx, func(cmd *exec.Cmd) { cmd.Stdin = stdin }, "ctr", append([]string{"--address", containerdSocket(), "--namespace", "k8s.io"}, args...)...)
}

// loadPause puts the sandboxes' image into the node, if it isn't there.
func (c *Cluster) loadPause(ctx context.Context) error {
	if names, err := ctr(ctx, nil, "images", "list", "-q"); err != nil || strings.Contains(names, pauseImage+"\n") {
		return err
	}
	binary, err := buildPause(ctx)
	if err != nil {
		return err
	}
	archive, err := dockerArchive(pauseImage, "pause", binary)
	if err != nil {
		return err
	}
	return importImage(ctx, bytes.NewReader(archive))
}

func buildPause(ctx context.Context) ([]byte, error) {
	path := filepath.Join(Dir, "pause")
	if _, err := run(ctx, static, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, modulePath+"/cmd/pause"); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// dockerArchive is an image of one file, which is its entry point.
func dockerArchive(name, file string, content []byte) ([]byte, error) {
	layer, err := tarball(map[string][]byte{file: content})
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{"/" + file}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	return tarball(map[string][]byte{"manifest.json": manifest, "config.json": config, "layer.tar": layer})
}

func tarball(files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}
