package child

import "os"

var ownSignals = []os.Signal{os.Interrupt}

// fromTerminal is true: the console sends its signals to all its processes, and
// signals cannot be passed on.
func fromTerminal(os.Signal) bool { return true }

func endOf(state *os.ProcessState) End { return End{Code: state.ExitCode()} }

func controlled() bool {
	f, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
