package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports are taken from below those that the kernel gives to outgoing connections
// (32768 and up by default), so that no connection takes one before the program
// that it was meant for.
const firstPort, lastPort = 10000, 32000

// FreeAddress returns an address of a host that nobody listened at a moment ago, and
// that is given to nobody else, here or in another program, until this one ends: what
// it is for may begin to listen much later.
func FreeAddress(host string) (string, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var release func()
		if release, err = claim(port); err != nil {
			continue
		}
		address := net.JoinHostPort(host, strconv.Itoa(port))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
		release()
	}
	return "", err
}

// claim takes the UDP port of a number, which nothing here listens at. The socket is no
// net.PacketConn, which the garbage collector would close.
func claim(port int) (release func(), err error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("claiming port %d: %w", port, err)
	}
	release = func() { _ = syscall.Close(fd) }
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err != nil {
		release()
		return nil, fmt.Errorf("claiming port %d: %w", port, err)
	}
	return release, nil
}
