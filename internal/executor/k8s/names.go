package k8s

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// Labels and annotations of all that is made for a job.
const (
	LabelInstance = "signalman.instance"
	LabelJob      = "signalman.job"
	// annotationJob is the job's id, which not every label can be.
	annotationJob = "signalman.job-id"
)

const (
	mainContainer = "main"
	podPrefix     = "semaphore-job-"
	// mostName leaves room for what Secrets' names have besides the pod's.
	mostName, mostLabel = 200, 63
)

var (
	subdomain  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	dnsLabel   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelValue = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	notInName  = regexp.MustCompile(`[^a-z0-9]+`)
)

// podName is the name of a job's pod. The hub's ids fit into one; of others, a name is made that is no other id's.
func podName(job string) string {
	if name := podPrefix + job; len(name) <= mostName && subdomain.MatchString(name) {
		return name
	}
	plain := strings.Trim(notInName.ReplaceAllString(strings.ToLower(job), "-"), "-")
	return podPrefix + strings.TrimLeft(plain[:min(len(plain), mostLabel)]+"-", "-") + hash(job)
}

func envSecretName(pod string) string  { return pod + "-env" }
func pullSecretName(pod string) string { return pod + "-pull" }

// ownLabels are those by which what is made for a job is found.
func ownLabels(instance, job string) map[string]string {
	return map[string]string{LabelInstance: asLabel(instance), LabelJob: asLabel(job)}
}

func asLabel(text string) string {
	if len(text) <= mostLabel && labelValue.MatchString(text) {
		return text
	}
	return "sha256-" + hash(text)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
