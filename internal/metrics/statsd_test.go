package metrics

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/uploader"
	"github.com/signalman-ci/signalman/shared/eventlog"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const patience = time.Minute

// server is a StatsD server that keeps what it is told.
type server struct {
	conn net.PacketConn
	done sync.WaitGroup

	mu    sync.Mutex
	lines []string
}

func startServer(t *testing.T) *server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{conn: conn}
	s.done.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.lines = append(s.lines, strings.Fields(string(buf[:n]))...)
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = conn.Close(); s.done.Wait() })
	return s
}

// has waits for a line, and tells whether it came.
func (s *server) has(t *testing.T, line string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range s.lines {
			if l == line {
				return true
			}
		}
		return false
	}, patience, time.Millisecond, "no %s in %s", line, s)
}

func (s *server) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func (s *server) options() *StatsD {
	addr := s.conn.LocalAddr().(*net.UDPAddr)
	return &StatsD{Host: "127.0.0.1", Port: addr.Port, Namespace: "agent.prod", Every: time.Hour, Logger: hclog.NewNullLogger()}
}

func TestStatsD(t *testing.T) {
	s := startServer(t)
	m := New(Options{StatsD: s.options()})
	m.Slots(func() []agent.Status { return []agent.Status{{Slot: 1, State: "waiting-for-jobs"}} })
	m.Flush() // and so the server is known
	at := time.Unix(1000, 0)
	end := agent.End{Executor: "compose", Result: protocol.Passed, Taken: at, Ended: at.Add(90 * time.Second), Log: logWith(t,
		eventlog.JobStarted(at), eventlog.CmdStarted(at, pullDirective), eventlog.CmdFinished(at, pullDirective, 0, at, at.Add(7*time.Second)))}
	m.JobEnded(end)
	end.Log, end.Result = logWith(t, eventlog.CmdFinished(at, pullDirective, 1, at, at), eventlog.JobFinished(at, "failed")), protocol.Failed
	m.JobEnded(end)
	m.JobStarted("compose", 250*time.Millisecond)
	m.WorkerStarted("my.plugin:1|c", 20*time.Millisecond)
	s.has(t, "agent.prod.compose.docker.pull.duration:7000.000000|ms")
	s.has(t, "agent.prod.compose.docker.pull.rate:1|c")
	s.has(t, "agent.prod.compose.docker.error.rate:1|c")
	s.has(t, "agent.prod.job_duration.compose:90000.000000|ms")
	s.has(t, "agent.prod.job_queue:250.000000|ms")
	s.has(t, "agent.prod.worker_start.my_plugin_1_c:20.000000|ms")

	m.Flush()
	s.has(t, "agent.prod.jobs_finished.compose.passed:1|c")
	s.has(t, "agent.prod.slots.waiting-for-jobs:1|g")
	shipping := m.Shipping("none", func() int64 { return 0 })
	shipping.Sent(nil, uploader.Amount{Events: 5, Bytes: 100})
	m.Flush()
	shipping.Sent(nil, uploader.Amount{Events: 2})
	m.Close()
	s.has(t, "agent.prod.log_events_shipped:5|c")
	s.has(t, "agent.prod.log_events_shipped:2|c") // what was added since, and at the end without a wait
	assert.Equal(t, 1, strings.Count(s.String(), "jobs_finished.compose.passed"), "what has not grown isn't told again")
	for _, line := range strings.Fields(s.String()) {
		assert.Regexp(t, `^agent\.prod\.[A-Za-z0-9_.-]+:[0-9.e+-]+\|(c|g|ms)$`, line, "plain StatsD")
		assert.NotContains(t, line, "timestamp")
		assert.NotContains(t, line, "build_info")
	}
}

// A server that can't be found is looked for again and again, and nothing else is the matter.
func TestStatsDServerThatIsNotThere(t *testing.T) {
	o := &StatsD{Host: "no such host", Port: 1, Every: time.Millisecond, Logger: hclog.NewNullLogger()}
	m := New(Options{StatsD: o})
	m.JobEnded(agent.End{Executor: "compose", Result: protocol.Failed})
	m.Flush()
	assert.Equal(t, 1., scrape(t, m)[`signalman_jobs_finished_total{executor="compose",result="failed"}`])
	m.Close()
}
