package shortcircuit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// lenderName tells a child process whom to borrow from.
const lenderName = "WAGGLE_TEST_LENDER"

// borrowAndHang is the child of TestAKilledClientIsReleased.
func borrowAndHang(name string) error {
	c, err := Dial(context.Background(), name)
	if err != nil {
		return err
	}
	b, err := c.Borrow(context.Background(), 1, 0)
	if err != nil {
		return err
	}
	if _, err := b.all(); err != nil {
		return err
	}
	fmt.Println("holds a loan")
	select {}
}

// The server forgets a client that was killed while it held a loan, and keeps
// none of its descriptors; the replica can be lent to others and taken back.
func TestAKilledClientIsReleased(t *testing.T) {
	l := lend(t)
	keeper := dial(t, l)
	_, err := keeper.Borrow(t.Context(), 1, 0)
	require.NoError(t, err)
	before := descriptors(t)

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lenderName+"="+l.Name())
	child.Stderr = t.Output()
	output, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(output).ReadString('\n')
	assert.NoError(t, err)
	assert.Equal(t, "holds a loan\n", line)
	assert.Equal(t, 2, l.serves())
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())

	require.Eventually(t, func() bool { return l.serves() == 1 }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return descriptors(t) <= before }, 5*time.Second, time.Millisecond)
	l.lent.Load().TakeBack()
	b, err := keeper.Borrow(t.Context(), 2, 0)
	require.NoError(t, err)
	_, err = b.all()
	require.NoError(t, err)
}

func (l *lender) serves() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}

// Another user gets nothing, and is told so.
func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	l := lend(t)
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends as another user
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			refused <- errno
			return
		}
		c, err := Dial(context.Background(), l.Name())
		if err == nil {
			c.Close()
		}
		refused <- err
	}()
	err := <-refused
	require.ErrorIs(t, err, ErrGone)
	require.ErrorContains(t, err, "its own user and root alone")
	require.Zero(t, l.serves())
	dial(t, l)
}
