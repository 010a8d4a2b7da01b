package process

// Identity names one process for good: a process id alone is used again, after a reboot at the latest.
type Identity struct {
	PID int `json:"pid"`
	// Start is the process's start time in the kernel's own unit, 0 where it can't be had.
	Start uint64 `json:"start_time"`
	// Boot is the id of the boot in which the process ran, "" where it can't be had.
	Boot string `json:"boot_id"`
}

// Identify tells the identity of a running process.
func Identify(pid int) (Identity, error) {
	start, err := startTime(pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, Start: start, Boot: bootID()}, nil
}

// Rebooted tells whether the host was started anew since that process ran.
func (id Identity) Rebooted() bool { return id.Boot != bootID() }

// Alive tells whether that very process still runs. A zombie doesn't.
func (id Identity) Alive() bool {
	if id.PID <= 0 || id.Boot != bootID() {
		return false
	}
	start, err := startTime(id.PID)
	return err == nil && start == id.Start
}
