package shell

import (
	"os"
	"strconv"
	"strings"
)

// expendable is how much more a job's processes are to be taken than others when the host runs out of memory.
const expendable = 500

// asFirstToGo starts a process that the kernel ends before the worker and the supervisor when the host runs out of memory. A child is
// born with the value of its parent, so this process has it for a moment: then not even the first line of a user's profile runs
// without. Neither raising the value nor setting it back takes rights. A job can set its own back too: it is no boundary.
func asFirstToGo(start func() error) error {
	const file = "/proc/self/oom_score_adj"
	raw, err := os.ReadFile(file)
	if err != nil {
		return start() // it is a nicety
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return start()
	}
	set := func(score int) { _ = os.WriteFile(file, []byte(strconv.Itoa(score)), 0) }
	const highest = 1000
	set(min(own+expendable, highest))
	defer set(own)
	return start()
}
