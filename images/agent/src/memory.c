// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Access to memory that may be gone: SIGBUS and SIGSEGV end the access instead of the process. In C, because
 * sigsetjmp() returns twice, which Rust knows nothing of.
 *
 * Right for any thread: the way back and the flag are the thread's own, and the kernel delivers a signal that
 * an access raises to the thread that raised it. Nothing is skipped on the way back but the loop below, which
 * holds nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static __thread sigjmp_buf hf_back;
static __thread volatile sig_atomic_t hf_guarding;
static __thread volatile sig_atomic_t hf_code;

static void hf_fault(int signo, siginfo_t *info, void *context)
{
	(void)context;
	/* A code that is not positive: somebody sent it. */
	if (hf_guarding && info->si_code > 0) {
		hf_guarding = 0;
		hf_code = info->si_code;
		siglongjmp(hf_back, signo);
	}
	/* Not ours: as if there were no handler. An access raises it again by itself. */
	signal(signo, SIG_DFL);
	if (info->si_code <= 0)
		raise(signo);
}

/* Takes over one of the two signals. 0 or an errno. */
int hf_guard(int signo)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = hf_fault;
	action.sa_flags = SA_SIGINFO;
	sigemptyset(&action.sa_mask);
	return sigaction(signo, &action, NULL) ? errno : 0;
}

/*
 * Copies byte by byte; volatile, because another process or a device may look at the same bytes. 0, or the
 * signal that an access raised, with its code.
 */
int hf_copy(volatile uint8_t *to, const volatile uint8_t *from, size_t len, int *code)
{
	int signo = sigsetjmp(hf_back, 1);
	size_t at;

	if (signo) {
		*code = hf_code;
		return signo;
	}
	hf_guarding = 1;
	for (at = 0; at < len; at++)
		to[at] = from[at];
	hf_guarding = 0;
	return 0;
}
