package metrics

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/shared/protocol"
)

var update = flag.Bool("update", false, "write the table in docs/metrics.md anew")

const (
	docPath       = "../../docs/metrics.md"
	dashboardPath = "../../packaging/grafana/signalman.json"
	rulesPath     = "../../packaging/prometheus/alerts.yaml"
)

// all gives every figure of ours, each with a value.
func all(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	m := New(Options{})
	m.Slots(func() []agent.Status { return []agent.Status{{Slot: 1, State: "waiting-for-jobs"}} })
	m.WorkerStarted("shell", time.Second)
	m.JobEnded(agent.End{Executor: "shell", Result: protocol.Passed})
	families, err := m.own.Gather()
	require.NoError(t, err)
	described := map[string]bool{}
	out := make(chan *prometheus.Desc)
	go func() { m.own.Describe(out); close(out) }()
	for d := range out {
		described[d.String()] = true
	}
	require.Len(t, families, len(described), "each figure must have a value here")
	return families
}

// known are the names that a query may use, with the labels that each has.
func known(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	for _, f := range all(t) {
		labels := labelsOf(f)
		if f.GetType() != dto.MetricType_HISTOGRAM {
			names[f.GetName()] = labels
			continue
		}
		names[f.GetName()+"_bucket"] = append([]string{"le"}, labels...)
		names[f.GetName()+"_sum"], names[f.GetName()+"_count"] = labels, labels
	}
	return names
}

func labelsOf(f *dto.MetricFamily) []string {
	var labels []string
	for _, l := range f.GetMetric()[0].GetLabel() {
		labels = append(labels, l.GetName())
	}
	return labels
}

var (
	ours    = regexp.MustCompile(`signalman_[a-z_]+`)
	grouped = regexp.MustCompile(`by \(([a-z, ]+)\)`)
	matched = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
	shown   = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?([a-z]+) ?\}\}`)
)

// checkQuery holds an expression, and what is shown of its result, against what there is. It tells which figures it uses.
func checkQuery(t *testing.T, names map[string][]string, expr, text string) []string {
	t.Helper()
	used := ours.FindAllString(expr, -1)
	labels := []string{"instance", "job", "version"} // Prometheus' own, and what build_info joins
	for _, name := range used {
		if assert.Contains(t, names, name, "%s: there is no such figure", expr) {
			labels = append(labels, names[name]...)
		}
	}
	for _, found := range append(grouped.FindAllStringSubmatch(expr, -1), matched.FindAllStringSubmatch(expr, -1)...) {
		for label := range strings.SplitSeq(found[1], ",") {
			assert.Contains(t, labels, strings.TrimSpace(label), "%s: there is no such label", expr)
		}
	}
	for _, found := range shown.FindAllStringSubmatch(text, -1) {
		assert.Contains(t, labels, found[1], "%s: there is no such label", text)
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		assert.Equal(t, strings.Count(expr, pair[:1]), strings.Count(expr, pair[1:]), expr)
	}
	return used
}

func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash(dashboardPath))
	require.NoError(t, err)
	var dashboard struct {
		Title, UID string
		Templating struct {
			List []struct{ Name, Type string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			Datasource  struct{ UID string }
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(raw, &dashboard))
	assert.Equal(t, "datasource", dashboard.Templating.List[0].Type)
	names, used, ids := known(t), map[string]bool{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		assert.False(t, ids[p.ID], "two panels have id %d", p.ID)
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		assert.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		assert.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			for _, name := range checkQuery(t, names, target.Expr, target.LegendFormat) {
				used[name] = true
			}
		}
	}
	for name := range names {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
		assert.True(t, used[name] || used[name+"_bucket"], "the dashboard doesn't show %s", name)
	}
}

func TestRules(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash(rulesPath))
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.UnmarshalStrict(raw, &rules))
	names, alerts := known(t), []string{}
	for _, group := range rules.Groups {
		for _, r := range group.Rules {
			checkQuery(t, names, r.Expr, r.Annotations["summary"]+r.Annotations["description"])
			assert.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
			assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
			assert.NotEmpty(t, r.Annotations["description"], "%s: what is to be done?", r.Alert)
			assert.False(t, slices.Contains(alerts, r.Alert), r.Alert)
			alerts = append(alerts, r.Alert)
			if r.For != "" {
				_, err := time.ParseDuration(r.For)
				assert.NoError(t, err, r.Alert)
			}
		}
	}
	assert.Subset(t, alerts, []string{
		"SignalmanDown", "SignalmanNoSync", "SignalmanNotReady", "SignalmanPaused", "SignalmanUploadLag", "SignalmanSpoolGrowing",
		"SignalmanJobFaults", "SignalmanConfigReloadFailed",
	})
}

// TestDoc holds the table in docs/metrics.md to the figures. Write it anew with: go test ./internal/metrics -run TestDoc -update
func TestDoc(t *testing.T) {
	var table strings.Builder
	table.WriteString("| name | kind | labels | what it tells |\n|---|---|---|---|\n")
	for _, f := range all(t) {
		var labels []string
		for _, l := range labelsOf(f) {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	raw, err := os.ReadFile(filepath.FromSlash(docPath))
	require.NoError(t, err)
	doc := string(raw)
	const begin, end = "<!-- the table is made by internal/metrics -->\n", "<!-- end of the table -->"
	before, rest, found := strings.Cut(doc, begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	want := before + begin + table.String() + end + after
	if *update {
		require.NoError(t, os.WriteFile(filepath.FromSlash(docPath), []byte(want), 0o644))
		doc = want
	}
	require.Equal(t, want, doc, "run: go test ./internal/metrics -run TestDoc -update")
}
