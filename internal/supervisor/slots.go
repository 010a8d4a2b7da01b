package supervisor

import (
	"slices"

	"github.com/signalman-ci/signalman/internal/agent"
)

// slot is one place for a job, in the supervisor's count.
type slot struct {
	*agent.Agent
	// retired is set once there are to be fewer slots than this one's number.
	retired bool

	ended  bool // its agent's Run has returned, with what follows
	reason agent.Reason
	err    error
}

// comesBack tells whether a slot that has ended may work again under other settings: it didn't end as it was meant to, or was to be no
// more, which may be another matter now.
func (s *slot) comesBack() bool {
	return s.ended && (s.err != nil || s.Drain || s.reason == agent.UnableToSync)
}

// slots are those of a supervisor that runs. They are not safe for concurrent use.
type slots struct {
	all []*slot
	// gone is closed when no slot works any more; from then on none can be added.
	gone    chan struct{}
	working int
	last    agent.Reason // why the last one left that has
}

// highest is the highest number of one.
func (s *slots) highest() int {
	if len(s.all) == 0 {
		return 0
	}
	return s.all[len(s.all)-1].Slot
}

func newSlots() *slots { return &slots{gone: make(chan struct{})} }

// forget takes a slot out of the list that has ended.
func (s *slots) forget(number int) {
	s.all = slices.DeleteFunc(s.all, func(known *slot) bool { return known.Slot == number })
}

// add counts a slot that is about to work. One with the same number, which has ended, is forgotten.
func (s *slots) add(added *slot) {
	s.forget(added.Slot)
	s.all = append(s.all, added)
	slices.SortFunc(s.all, func(a, b *slot) int { return a.Slot - b.Slot })
	s.working++
}

// end counts a slot that has ended, and works no more.
func (s *slots) end(ended *slot) {
	if ended.err == nil && s.last != agent.HandedOver { // else a slot is there still
		s.last = ended.reason
	}
	if s.working--; s.working == 0 {
		close(s.gone)
	}
}

func (s *slots) find(number int) *slot {
	for _, known := range s.all {
		if known.Slot == number {
			return known
		}
	}
	return nil
}

// left are the numbers of those that have left for good, though they are to be.
func (s *slots) left() []int {
	var numbers []int
	for _, known := range s.all {
		if known.ended && known.err == nil && known.reason != agent.HandedOver && !known.retired {
			numbers = append(numbers, known.Slot)
		}
	}
	return numbers
}

// failure is the error of the first slot that could not register, if none could.
func (s *slots) failure() error {
	if s.last != "" || len(s.all) == 0 {
		return nil
	}
	return s.all[0].err
}
