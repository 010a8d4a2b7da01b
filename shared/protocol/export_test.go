package protocol

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRefusedVariablesDontFailAJob(t *testing.T) {
	w := newWorker(t)
	w.executor.exportErr = &RefusedError{Names: []string{"EUID", "UID"}}
	w.executor.scripts["exit 0"] = ends(0)
	const warnings = "  Warning: EUID is not exported, as it is a read-only variable of the shell; it keeps the value it has there.\n" +
		"  Warning: UID is not exported, as it is a read-only variable of the shell; it keeps the value it has there.\n"
	const lost = "  Warning: the command before ended its shell; this one runs in a new one, without the folder and variables it had set.\n"
	assert.Equal(t, "job\n"+
		"> Exporting environment variables\n  Exporting EUID\n  Exporting UID\n"+warnings+"< Exporting environment variables: 0\n"+
		"> Injecting Files\n< Injecting Files: 0\n"+
		"> exit 0\n< exit 0: 0\n"+
		"> a\n"+lost+"< a: 0\n"+ // a new shell: told before
		"> Exporting environment variables\n  Exporting SEMAPHORE_JOB_RESULT\n"+warnings+"< Exporting environment variables: 0\n"+
		"job passed\n",
		w.run(&Job{Env: []EnvVar{{Name: "UID", Value: "0"}, {Name: "EUID", Value: "0"}}, Commands: commands("exit 0", "a")}))
}
