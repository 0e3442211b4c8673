package setup

import "io/fs"

// keepOwner has nothing to do: a new file belongs to whoever writes it.
func keepOwner(string, fs.FileInfo) error { return nil }
