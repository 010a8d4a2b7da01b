package mask

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// logText is what builds print, more or less.
func logText(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("go build: downloading github.com/ some/package v1.2.3 ok PASS INFO warning test compile 0.012s (cached) " +
		"step --> [12/40] node_modules/.bin error= false true 2026-11-24T17:40:21Z sha256:0f343b0931126a20f133d67c2b018a3b Authorization: token")
	var b strings.Builder
	for b.Len() < size {
		for range 4 + random.IntN(12) {
			b.WriteString(words[random.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return []byte(b.String()[:size])
}

// randomBase64 looks most like secrets.
func randomBase64(size int) []byte {
	random := rand.New(rand.NewPCG(7, 8))
	raw := make([]byte, size)
	for i := range raw {
		raw[i] = byte(random.Uint32())
	}
	return []byte(base64.StdEncoding.EncodeToString(raw))[:size]
}

// tokens are secrets of n variables.
func tokens(n int) []Secret {
	random := rand.New(rand.NewPCG(3, 4))
	var out []Secret
	for i := range n {
		value := fmt.Sprintf("ghp_%016x%016x", random.Uint64(), random.Uint64())
		switch i % 4 {
		case 1:
			value = fmt.Sprintf("p@ss/w0rd'%x", random.Uint64())
		case 2:
			value = fmt.Sprintf("postgres://user:%x@db.example.com:5432/app?sslmode=disable", random.Uint64())
		}
		out = append(out, variable(value))
	}
	return out
}

// keyFile is a kubeconfig of about a size.
func keyFile(size int) Secret {
	random := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	for b.Len() < size {
		fmt.Fprintf(&b, "- name: cluster-%d\n  user:\n    client-key-data: ", random.Uint32())
		for range 100 {
			fmt.Fprintf(&b, "%016X", random.Uint64())
		}
		b.WriteString("\n    server: https://kubernetes.example.com:6443\n")
	}
	return Secret{Name: ".kube/config", Value: b.String(), File: true}
}

func BenchmarkStream(b *testing.B) {
	for name, test := range map[string]struct {
		secrets []Secret
		text    []byte
	}{
		"0 secrets":     {nil, logText(1 << 20)},
		"5 secrets":     {tokens(5), logText(1 << 20)},
		"50 secrets":    {tokens(50), logText(1 << 20)},
		"random base64": {tokens(10), randomBase64(1 << 20)},
		"300 secrets":   {tokens(300), logText(1 << 20)},
		"key files":     {append(tokens(10), keyFile(8<<10), keyFile(1<<20)), logText(1 << 20)},
		"a secret each": {tokens(1), []byte(strings.Repeat("token="+tokens(1)[0].Value+" and more\n", 10_000))},
		"worst case":    {[]Secret{variable(strings.Repeat("a", 5000) + "b")}, []byte(strings.Repeat("a", 1<<20))},
	} {
		b.Run(name, func(b *testing.B) {
			s := New(test.secrets).NewStream()
			b.SetBytes(int64(len(test.text)))
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				for rest := test.text; len(rest) > 0; {
					n := min(4<<10, len(rest)) // as a terminal hands it over
					dst = s.Append(dst[:0], rest[:n])
					rest = rest[n:]
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for name, secrets := range map[string][]Secret{
		"10 variables": tokens(10), "300 variables": tokens(300), "3 KB key": {keyFile(3000)}, "30 KB file": {keyFile(30000)}, "1 MB file": {keyFile(1e6)},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				New(secrets)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			m := New(secrets)
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)), "kept-bytes")
			size := 0
			for _, p := range m.index.patterns {
				size += len(p)
			}
			b.ReportMetric(float64(size), "pattern-bytes")
		})
	}
}
