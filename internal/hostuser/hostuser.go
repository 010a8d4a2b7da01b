// Package hostuser finds users of this host as people name them.
package hostuser

import "os/user"

// Lookup finds a user by name, or by number if nobody has that name. The error is that of the name.
func Lookup(nameOrNumber string) (*user.User, error) {
	u, err := user.Lookup(nameOrNumber)
	if err == nil {
		return u, nil
	}
	if byNumber, numberErr := user.LookupId(nameOrNumber); numberErr == nil {
		return byNumber, nil
	}
	return nil, err
}
