package process

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below those that the kernel gives to outgoing connections
// (32768 and up by default), so that no connection takes one before the program
// that it was meant for.
const firstPort, lastPort = 10000, 32000

// FreeAddress returns an address of a host that nobody listened at a moment ago.
func FreeAddress(host string) (string, error) {
	var err error
	for range 100 {
		address := net.JoinHostPort(host, strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", err
}
