package conformance

// Cases are all that a worker has to pass.
func Cases() []Case {
	return []Case{
		{"handshake", "the binary shows go-plugin's handshake line (gRPC, protocol version 1) and serves the health service", handshake},
		{"by-hand", "started without the magic cookie in its environment, the binary says so and ends with a status other than 0", byHand},
		{"describe", "Describe gives a version, and as its name the NAME of worker-NAME", describe},
		{"check-host", "Check answers with named results, and says what to do in those that are not OK", checkHost},
		{"waiting", "Watch tells a worker without a job to be in phase WAITING, and Stop does nothing then", waiting},

		{"passing-job", "a job whose commands exit with 0 passes, with its sections in the protocol's order and the on-pass epilogues", passingJob},
		{"start-twice", "Start with the id of the job held does nothing; with another id it fails with FAILED_PRECONDITION", startTwice},
		{"unusable-job", "Start without a job id or log path fails with INVALID_ARGUMENT, and the worker still takes a job then", unusableJob},
		{"large-job", "a request of 10 MiB is taken (the limit is 64 MiB)", largeJob},

		{"failing-command", "a failing command ends the list, its exit code is told, and the always and on-fail epilogues know the result", failingCommand},
		{"exit-in-command", "a command that ends its shell ends with that exit code, and the epilogues run in another shell", exitInCommand},
		{"alias", `an alias is the section's directive; its output begins with "Running: COMMAND"`, alias},
		{"environment", "variables arrive byte by byte, exported, the last of a name; their names are shown sorted", environment},
		{"files", "files arrive byte by byte with their mode, at absolute, home (~/) and relative paths", files},
		{"shell-state", "all commands run in one shell: the folder, variables, functions and options last", shellState},
		{"terminal", "standard output is a terminal, and reading standard input ends at once", terminal},
		{"signals", "commands start with no signal ignored: a broken pipe ends the program that writes to it, and a hangup any", signals},
		{"output", `output is valid UTF-8: "\r\n" becomes "\n", a sequence is never cut, other bytes become U+FFFD`, output},
		{"secrets", `a value marked secret, and each long line of one, is "***" in the log: across writes, and in directives too`, secrets},
		{"background", "a background child that keeps the terminal open doesn't hold its command, and ends with the job", background},
		{"hooks", "a sourced pre-job hook runs before the commands in their shell; the post-job hook after all, with its own exit code", hooks},
		{"failing-hook", "a failing pre-job hook with fail_job fails the job before its first command", failingHook},

		{"exit-130-passed", "a command that exits with 130 ends the job; SEMAPHORE_JOB_RESULT=passed makes it pass", exit130Passed},
		{"exit-130-failed", "a command that exits with 130 ends the job; SEMAPHORE_JOB_RESULT=failed makes it fail", exit130Failed},
		{"exit-130-other", "a command that exits with 130 ends the job; any other SEMAPHORE_JOB_RESULT makes it stopped, without epilogues", exit130Other},

		{"stop", "Stop ends all that the job has started; the running command's exit code is 1, no epilogue runs, the job is stopped", stop},
		{"stop-hook", "the post-job hook runs after a stop too, in a fresh shell", stopHook},
		{"watchers", "any number of watchers get the status at once, and may come and go", watchers},
		{"lost-supervisor", "the job goes on when the supervisor's connection and pipes are lost; another one attaches and watches", lostSupervisor},
		{"exit-after-job", "the worker's process ends by itself with status 0 when its job is over", exitAfterJob},
		{"cleanup", "after a worker's death List names its job if something is left, Cleanup removes that and may be repeated", cleanup},
	}
}
