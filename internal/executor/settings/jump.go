package settings

// JumpMode is the first argument of worker-compose where it is no worker, but lets somebody into a job's container. Those of the instance id,
// the job, the container's name and a file of variables follow, then the command.
const JumpMode = "jump"
