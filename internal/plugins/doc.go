// Package plugins finds executors: the workers that come with Signalman, and those that people drop into plugin folders. It tells
// what is wrong with a file before anybody tries to run it, holds plugins to what plugins.lock pins, and starts their workers.
//
// It looks anew each time, so a plugin that was dropped into its folder is there for the next job. Watch only tells the log of it.
package plugins
