package loopback

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	for _, good := range []string{"127.0.0.1:8070", "127.9.9.9:1", "[::1]:80", "localhost:65535", "LocalHost:0", "[::ffff:127.0.0.1]:80"} {
		require.NoError(t, Check(good), good)
	}
	for bad, want := range map[string]string{
		"": "is no host:port", "8070": "is no host:port", "127.0.0.1": "is no host:port", ":8070": "ssh -L 8070:127.0.0.1:8070 HOST",
		"0.0.0.0:80": "not on loopback", "[::]:80": "not on loopback", "192.168.1.1:80": "not on loopback", "example.com:80": "not on loopback",
		"localhost.example.com:80": "not on loopback", "127.0.0.1.example.com:80": "not on loopback", "127.1:80": "not on loopback",
		"127.0.0.1:http": "no port that can be", "127.0.0.1:65536": "no port that can be", "127.0.0.1:-1": "no port that can be", "127.0.0.1:": "no port that can be",
	} {
		require.ErrorContains(t, Check(bad), want, bad)
	}
}

func TestListen(t *testing.T) {
	l, err := Listen(context.Background(), "localhost:0")
	require.NoError(t, err)
	_, err = Listen(context.Background(), l.Addr().String())
	require.Error(t, err, "it is taken")
	require.NoError(t, l.Close())
	_, err = Listen(context.Background(), "0.0.0.0:0")
	assert.ErrorContains(t, err, "not on loopback")
}
