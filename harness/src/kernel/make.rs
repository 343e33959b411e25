// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running make: nothing of the user's environment goes in, progress and the errors that matter come
//! out, and no process outlives us.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::tools;
use crate::outcome::Interrupted;
use crate::progress::Bar;

/// Runs its arguments and ends the whole process group when standard input ends: the other end is
/// ours, and the kernel closes it however we end. A parent-death signal would reach make alone, and
/// its sub-makes would go on compiling.
const GUARD: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
"$@" 3<&-
"#;

/// How often the cancel flag is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long make may take to remove half-written targets after TERM.
const GRACE: Duration = Duration::from_secs(5);

/// How to call make.
pub(super) struct Make<'a> {
    /// The source tree.
    pub(super) tree: &'a Path,
    /// The object folder's name in it.
    pub(super) objects: &'a str,
    /// Parallel jobs.
    pub(super) jobs: usize,
    /// Looked at all the time; true ends make.
    pub(super) cancel: &'a AtomicBool,
}

/// A build that ended by itself.
pub(super) struct Ended {
    pub(super) is_success: bool,
    /// Lines of a build that name a file: compiled, linked, generated.
    pub(super) steps: u64,
}

impl Make<'_> {
    fn command(&self, variables: &[(&str, &str)], target: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "holdfast-make", "make"]);
        command.arg("-C").arg(self.tree).arg(format!("O={}", self.objects)).arg(format!("-j{}", self.jobs));
        command.args(FIXED.map(|(name, value)| format!("{name}={value}"))).arg(target);
        command.env_clear().envs(tools::clean_env()).envs(variables.iter().copied());
        command.process_group(0);
        command
    }

    /// Runs a quick target and keeps what it says for the error.
    ///
    /// # Errors
    /// When the target fails.
    pub(super) fn quick(&self, variables: &[(&str, &str)], target: &str) -> Result<()> {
        let mut said = Vec::new();
        let ended = self.run(variables, target, |line| said.push(line.to_owned()))?;
        if !ended {
            let text = said.join("\n");
            bail!("`make {target}` failed:\n{}", error_lines(&text).unwrap_or(text));
        }
        Ok(())
    }

    /// Builds a target, with everything in `log` and each step on the bar.
    ///
    /// # Errors
    /// When make cannot be run, the log cannot be written, or the build was cancelled.
    pub(super) fn build(&self, target: &str, log: &Path, bar: &Bar) -> Result<Ended> {
        let mut file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut write_error = None;
        let is_success = self.run(&[], target, |line| {
            if let Err(error) = writeln!(file, "{line}") {
                write_error.get_or_insert(error);
            }
            if let Some((_, what)) = step(line) {
                bar.step(what);
            }
        })?;
        if let Some(error) = write_error {
            return Err(error).with_context(|| format!("{} cannot be written", log.display()));
        }
        Ok(Ended { is_success, steps: bar.count() })
    }

    fn run(&self, variables: &[(&str, &str)], target: &str, mut each: impl FnMut(&str)) -> Result<bool> {
        let (output, output_end) = std::io::pipe()?;
        let mut command = self.command(variables, target);
        command.stdin(Stdio::piped()).stdout(output_end.try_clone()?).stderr(output_end);
        let child = command.spawn().context("`sh` could not be run")?;
        // The command holds our copies of the write end; with them open the output would never end.
        drop(command);
        let mut group = Group(child);
        let lines = lines_of(output);
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                group.stop();
                return Err(Error::new(Interrupted).context("make was stopped"));
            }
            match lines.recv_timeout(POLL) {
                Ok(line) => each(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = group.0.wait().context("make was lost")?;
        if let Some(signal) = status.signal() {
            bail!("make was killed by signal {signal} (is memory short? try fewer --jobs)");
        }
        Ok(status.success())
    }
}

/// Set on the command line, where neither the environment nor a makefile overrules: the image is
/// the same for the same input, and rebuilds stay small.
const FIXED: [(&str, &str); 6] = [
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("KBUILD_BUILD_USER", "holdfast"),
    ("KBUILD_BUILD_HOST", "holdfast"),
    ("ARCH", "x86_64"),
    // Set, though empty: setlocalversion then adds no `+` of its own.
    ("LOCALVERSION", ""),
];

/// make's process group; dropped, it is killed.
struct Group(Child);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // A group that is gone needs no signal.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < GRACE && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
        self.signal(Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Also after an orderly end: the guard waits for the end of its input.
        self.signal(Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn lines_of(output: PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// `  CC      mm/gup.o` as (`CC`, `mm/gup.o`).
fn step(line: &str) -> Option<(&str, &str)> {
    let (verb, what) = line.strip_prefix("  ")?.split_once(' ')?;
    let is_verb =
        verb.len() >= 2 && verb.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    is_verb.then(|| (verb, what.trim_start().trim_start_matches("[M]").trim_start()))
}

/// How many lines a compiler's quoted source and carets take after its error.
const CONTEXT_LINES: usize = 4;
/// More errors than these are the consequence of the first ones.
const MOST_ERRORS: usize = 10;

/// The lines of a log that say why a build failed; none when there are none.
pub(super) fn error_lines(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let mut found: Vec<&str> = Vec::new();
    let mut errors = 0;
    let mut index = 0;
    while index < lines.len() && errors < MOST_ERRORS {
        let line = lines[index];
        index += 1;
        if !is_error(line) {
            continue;
        }
        errors += 1;
        found.push(line);
        let context = lines[index..]
            .iter()
            .take(CONTEXT_LINES)
            .take_while(|line| line.starts_with(' ') && step(line).is_none());
        for line in context {
            found.push(line);
            index += 1;
        }
    }
    if found.is_empty() {
        // Only make itself complained: its first complaint is the innermost.
        let complaint = lines.iter().find(|line| line.contains("*** "))?;
        return Some((*complaint).to_owned());
    }
    Some(found.join("\n"))
}

fn is_error(line: &str) -> bool {
    const MARKS: [&str; 9] = [
        ": error: ",
        ": fatal error: ",
        ": undefined reference to ",
        "multiple definition of ",
        "syntax error",
        "recursive dependency detected",
        "No such file or directory",
        "No space left on device",
        ": command not found",
    ];
    // `make: *** [..] Error 1` only says that something below it failed.
    let is_make = line.starts_with("make") && line.contains("***") && !line.contains("No rule to make target");
    !is_make && (MARKS.iter().any(|mark| line.contains(mark)) || line.contains("No rule to make target"))
}

/// The error lines of a log file.
pub(super) fn errors_in(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    error_lines(&String::from_utf8_lossy(&bytes)).unwrap_or_else(|| "make gave no reason".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn steps_are_told_from_other_lines() {
        assert_eq!(step("  CC      mm/gup.o"), Some(("CC", "mm/gup.o")));
        assert_eq!(step("  CC [M]  fs/xfs/xfs.o"), Some(("CC", "fs/xfs/xfs.o")));
        assert_eq!(step("  LD      vmlinux"), Some(("LD", "vmlinux")));
        assert_eq!(step("mm/gup.c:12:3: error: x"), None);
        assert_eq!(step("   12 |   foo();"), None);
        assert_eq!(step("make[1]: Entering directory"), None);
    }

    #[test]
    fn a_failing_log_is_cut_down_to_the_errors() {
        let log = "  CC      mm/a.o\n../mm/gup.c: In function 'f':\n../mm/gup.c:12:9: error: 'x' undeclared (first use)\n   12 |  return x;\n      |         ^\n  CC      mm/b.o\n\
            ld: mm/gup.o: in function `f':\ngup.c:(.text+0x1): undefined reference to `missing'\nmake[3]: *** [../scripts/Makefile.build:229: mm/gup.o] Error 1\n";
        assert_eq!(
            error_lines(log).unwrap(),
            "../mm/gup.c:12:9: error: 'x' undeclared (first use)\n   12 |  return x;\n      |         ^\ngup.c:(.text+0x1): undefined reference to `missing'"
        );
        let only_make = "  CC a.o\nmake[1]: *** [x] Error 2\nmake: *** [y] Error 2\n";
        assert_eq!(error_lines(only_make).unwrap(), "make[1]: *** [x] Error 2");
        assert_eq!(error_lines("  CC      mm/a.o\n"), None);
    }

    #[test]
    fn at_most_ten_errors_are_shown() {
        let log: String = (0..50).map(|n| format!("a.c:{n}:1: error: e\n")).collect();
        assert_eq!(error_lines(&log).unwrap().lines().count(), MOST_ERRORS);
    }

    fn tree(makefile: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        dir
    }

    #[test]
    fn steps_are_counted_and_failures_told() {
        let dir = tree(
            "ok:\n\t@echo '  CC      a.o'; echo '  LD      b'\nbad:\n\t@echo 'a.c:1:1: error: no' >&2; exit 1\n",
        );
        let cancel = AtomicBool::new(false);
        let make = Make { tree: dir.path(), objects: "o", jobs: 1, cancel: &cancel };
        let log = dir.path().join("log");
        let progress = Progress::new(true);
        let ended = make.build("ok", &log, &progress.bar("t", None)).unwrap();
        assert!(ended.is_success && ended.steps == 2);
        let ended = make.build("bad", &log, &progress.bar("t", None)).unwrap();
        assert!(!ended.is_success);
        assert_eq!(errors_in(&log), "a.c:1:1: error: no");
    }

    /// Waits until a process whose number is in that file is gone.
    fn assert_ends(file: &Path) {
        let pid: i32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        // A killed process that nobody reaped yet is a zombie: it runs nothing.
        let gone =
            || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        let begun = Instant::now();
        while !gone() && begun.elapsed() < GRACE * 2 {
            thread::sleep(POLL);
        }
        assert!(gone(), "{} {pid} still runs", file.display());
    }

    const SLOW: &str = "slow:\n\t@echo $$$$ > pid; sleep 1000 & echo $$! > child; wait\n";

    #[test]
    fn when_we_are_killed_every_process_of_the_build_ends() {
        let dir = tree(SLOW);
        let cancel = AtomicBool::new(false);
        let make = Make { tree: dir.path(), objects: "o", jobs: 1, cancel: &cancel };
        let mut child = make.command(&[], "slow").stdin(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while !dir.path().join("child").exists() && begun.elapsed() < GRACE {
            thread::sleep(POLL);
        }
        thread::sleep(POLL);
        // What the kernel does with our end of the pipe when we die.
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_ends(&dir.path().join("pid"));
        assert_ends(&dir.path().join("child"));
    }

    #[test]
    fn cancelling_ends_every_process_of_the_build() {
        let dir = tree(SLOW);
        let cancel = AtomicBool::new(false);
        let make = Make { tree: dir.path(), objects: "o", jobs: 1, cancel: &cancel };
        let begun = Instant::now();
        let result = thread::scope(|scope| {
            let worker = scope.spawn(|| make.quick(&[], "slow"));
            while !dir.path().join("child").exists() && begun.elapsed() < GRACE {
                thread::sleep(POLL);
            }
            thread::sleep(POLL);
            cancel.store(true, Ordering::Relaxed);
            worker.join().unwrap()
        });
        assert!(result.unwrap_err().is::<Interrupted>());
        assert_ends(&dir.path().join("pid"));
        assert_ends(&dir.path().join("child"));
    }
}
