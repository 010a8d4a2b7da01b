// Package state is the life of a slot as the hub sees it: five states and one table of the moves between them. It does
// nothing but keep count.
package state

import "fmt"

// State is a state of a slot, in the hub's words.
type State string

// The states.
const (
	Waiting  State = "waiting-for-jobs"
	Starting State = "starting-job"
	Running  State = "running-job"
	Stopping State = "stopping-job"
	Finished State = "finished-job"
)

// move is what can happen to a slot.
type move string

const (
	take    move = "take"    // the hub has a job for the slot
	drop    move = "drop"    // the job turned out not to be the slot's
	hold    move = "hold"    // the job's request is on disk
	stop    move = "stop"    // the hub wants the job ended
	finish  move = "finish"  // the job is over and its log delivered
	release move = "release" // the hub knows the result
)

var table = map[move]map[State]State{
	take:    {Waiting: Starting},
	drop:    {Starting: Waiting},
	hold:    {Starting: Running},
	stop:    {Running: Stopping},
	finish:  {Starting: Finished, Running: Finished, Stopping: Finished},
	release: {Finished: Waiting},
}

// Machine is the state of one slot. The zero value waits for jobs. It is not safe for concurrent use.
type Machine struct {
	state  State
	jobID  string
	result string
}

// State tells where the slot is.
func (m *Machine) State() State {
	if m.state == "" {
		return Waiting
	}
	return m.state
}

// JobID tells the job the slot has; "" while it waits.
func (m *Machine) JobID() string { return m.jobID }

// Result tells the job's result; "" until it is finished.
func (m *Machine) Result() string { return m.result }

// Take notes that the hub has a job for the slot.
func (m *Machine) Take(jobID string) error {
	if err := m.move(take); err != nil {
		return err
	}
	m.jobID = jobID
	return nil
}

// Drop notes that the job isn't the slot's after all.
func (m *Machine) Drop() error { return m.leave(drop) }

// Hold notes that the job's request is on disk.
func (m *Machine) Hold() error { return m.move(hold) }

// Stop notes that the job is being stopped. A job that is being stopped already stays as it is.
func (m *Machine) Stop() error {
	if m.state == Stopping {
		return nil
	}
	return m.move(stop)
}

// Finish notes that the job is over.
func (m *Machine) Finish(result string) error {
	if err := m.move(finish); err != nil {
		return err
	}
	m.result = result
	return nil
}

// Release notes that the hub knows the result.
func (m *Machine) Release() error { return m.leave(release) }

func (m *Machine) leave(by move) error {
	if err := m.move(by); err != nil {
		return err
	}
	m.jobID, m.result = "", ""
	return nil
}

func (m *Machine) move(by move) error {
	to, ok := table[by][m.State()]
	if !ok {
		return fmt.Errorf("a slot in state %s can't %s", m.State(), by)
	}
	m.state = to
	return nil
}
