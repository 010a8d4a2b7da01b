package process

import "strings"

// JobMark is what a variable in the environment of a job's processes says, by which they are found (MarkedBy, EndMarked).
func JobMark(instanceID, jobID string) string { return instanceID + "/" + jobID }

// MarkedJobs tells how many processes each job of an instance has that carry its mark in a variable.
func MarkedJobs(variable, instanceID string) (map[string]int, error) {
	all, err := MarkedBy(variable)
	jobs := map[string]int{}
	for value, pids := range all {
		if instance, job, ok := strings.Cut(value, "/"); ok && instance == instanceID {
			jobs[job] = len(pids)
		}
	}
	return jobs, err
}
