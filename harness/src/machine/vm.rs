// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running VM: spawned, spoken to, stopped.
//!
//! The host binds its sockets before QEMU exists and QEMU connects to them. Every wait is raced
//! against QEMU's end, a deadline and the user. QEMU is a process group of its own and dies with
//! Holdfast even on SIGKILL: `setpriv` sets its parent-death signal before it becomes QEMU, and a
//! QEMU whose host is gone earlier than that finds nobody to connect to and ends by itself. The
//! signal fires when the spawning *thread* ends, so the runtime must be a single thread.
//!
//! A VM boots, boots to be saved, or is a copy of one that was saved; the agent's port is the same then.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_protocol::{MAX_FRAME_BYTES, Order, Reply, write_frame};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::command::{AGENT_SOCKET, GDB_SOCKET, Memory, Ports, QMP_SOCKET, SHELL_SOCKET, arguments};
use super::patience::Watch;
use super::qmp::Qmp;
use super::saved::{MEMORY, STATE, Saved};
use super::{Inside, Machine, pmem, pmem_file};

/// The user's wish to end the run.
pub type Cancel = watch::Receiver<bool>;

/// A wish that can be made once, and those who wait for it.
#[must_use]
pub fn cancel_pair() -> (watch::Sender<bool>, Cancel) {
    watch::channel(false)
}

/// Why a VM did not answer.
#[derive(Debug)]
pub enum Broken {
    /// QEMU ended; how, in words.
    Ended(String),
    /// It took longer than this, of which it could make use.
    Deadline(Duration),
    /// The user ended the run.
    Cancelled,
    /// The stream is out of step, or an order was refused.
    Fault(anyhow::Error),
    /// What a person has asked for is not there in the guest.
    Unknown(String),
}

impl Broken {
    /// In a line, with the last one of QEMU's own log in the VM's folder.
    #[must_use]
    pub fn in_words(&self, folder: &Path) -> String {
        let said = fs::read_to_string(folder.join(QEMU_LOG)).unwrap_or_default();
        let said = said.lines().last().map(|line| format!(" ({line})")).unwrap_or_default();
        match self {
            Self::Ended(how) => format!("QEMU ended: {how}{said}"),
            Self::Deadline(after) => format!("no answer within {} s{said}", after.as_secs()),
            Self::Cancelled => "the run was ended".to_owned(),
            Self::Fault(error) => format!("{error:#}"),
            Self::Unknown(why) => why.clone(),
        }
    }
}

/// A VM with its ports. Dropping it kills QEMU.
pub struct Vm {
    child: Child,
    agent: Option<UnixStream>,
    agent_listener: UnixListener,
    qmp: Talk,
    folder: PathBuf,
    transcript: File,
    begun: Instant,
    watch: Watch,
    cancel: Cancel,
}

/// QMP, which negotiates while the guest boots.
enum Talk {
    Opening(JoinHandle<Option<Qmp>>),
    Open(Option<Qmp>),
}

impl Talk {
    /// Waits for the negotiation; `None` when it failed.
    async fn get(&mut self) -> Option<&Qmp> {
        if let Self::Opening(task) = self {
            *self = Self::Open(task.await.ok().flatten());
        }
        match self {
            Self::Open(qmp) => qmp.as_ref(),
            Self::Opening(_) => None,
        }
    }
}

/// File of the orders and replies, a JSON value a line.
pub(super) const TRANSCRIPT: &str = "transcript.jsonl";
/// QEMU's own output.
pub(super) const QEMU_LOG: &str = "qemu.log";

/// Each rung of the ladder that ends a VM.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last bytes of a state may take to reach its file, and how often to look.
const STATE_PATIENCE: Duration = Duration::from_secs(5);
const STATE_POLL: Duration = Duration::from_millis(1);
/// QEMU connects its sockets before it loads the kernel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

impl Vm {
    /// Boots a machine in the case's folder, which gets the pmem files (those that are not there yet), the
    /// console and the transcript.
    ///
    /// # Errors
    /// When the folder cannot be used or QEMU cannot be run.
    pub fn boot(machine: &Machine, folder: &Path, cancel: Cancel) -> Result<Self> {
        Self::spawn(machine, Memory::Own, Stdio::null(), folder, cancel)
    }

    /// Boots a machine whose memory is a file of the folder.
    pub(super) fn boot_to_save(machine: &Machine, folder: &Path, cancel: Cancel) -> Result<Self> {
        let memory = folder.join(MEMORY);
        Self::spawn(machine, Memory::File(&memory), Stdio::null(), folder, cancel)
    }

    /// Kills QEMU as a power cut would, and boots the machine anew in the same folder, with the pmem files as they
    /// are.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn reboot(&mut self, machine: &Machine) -> Result<(), Broken> {
        self.signal(Signal::SIGKILL);
        if self.ended_within(STOP_PATIENCE).await.is_none() {
            return Err(Broken::Fault(anyhow::anyhow!("QEMU survived SIGKILL")));
        }
        // A debugger has looked at its first life, and nobody attaches one anew.
        let machine = Machine { inside: Inside { gdb: false, ..machine.inside }, ..machine.clone() };
        *self = Self::boot(&machine, &self.folder, self.cancel.clone()).map_err(Broken::Fault)?;
        Ok(())
    }

    /// Starts a copy of a saved machine on pmem of its own; [`Vm::resume`] lets it go on.
    ///
    /// # Errors
    /// When the folder cannot be used, the pmem not be copied or QEMU not be run.
    pub fn copy(machine: &Machine, saved: &Saved, folder: &Path, cancel: Cancel) -> Result<Self> {
        for device in &machine.pmem {
            let name = pmem_file(device.place);
            pmem::copy(&saved.dir.join(name), 0, &folder.join(name))?;
        }
        let memory = saved.dir.join(MEMORY);
        Self::spawn(machine, Memory::CopyOf(&memory), Stdio::piped(), folder, cancel)
    }

    fn spawn(
        machine: &Machine,
        memory: Memory<'_>,
        stdin: Stdio,
        folder: &Path,
        cancel: Cancel,
    ) -> Result<Self> {
        for device in &machine.pmem {
            pmem::make(folder, device)?;
        }
        let agent_listener = listen(folder, AGENT_SOCKET)?;
        let qmp_listener = listen(folder, QMP_SOCKET)?;
        let create = |name: &str| {
            let path = folder.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("cannot write {}", path.display()))
        };
        let log = create(QEMU_LOG)?;
        let child = Command::new("choom")
            // QEMU is the preferred victim when memory runs out.
            .args(["-n", "800", "--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(&machine.qemu)
            .args(arguments(machine, memory, Ports::Host))
            .current_dir(folder)
            .stdin(stdin)
            .stdout(log.try_clone().context("cannot share QEMU's log")?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("cannot run choom, setpriv (util-linux) and {}", machine.qemu.display())
            })?;
        let pid = child.id();
        let qmp = tokio::spawn(async move {
            let (stream, _) = qmp_listener.accept().await.ok()?;
            Qmp::open(stream).await
        });
        Ok(Self {
            child,
            agent: None,
            agent_listener,
            qmp: Talk::Opening(qmp),
            folder: folder.to_owned(),
            transcript: create(TRANSCRIPT)?,
            begun: Instant::now(),
            watch: Watch::new(pid).endless(machine.inside.gdb),
            cancel,
        })
    }

    /// Gives a copy the state it was saved with. It goes on where it was, waiting for orders.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn resume(&mut self, saved: &Saved, deadline: Duration) -> Result<(), Broken> {
        let stdin = self.child.stdin.take();
        let (qmp, listener) = (&mut self.qmp, &self.agent_listener);
        let resumed = race(&mut self.child, &mut self.watch, &mut self.cancel, deadline, async {
            let (agent, _) = listener.accept().await.context("cannot accept QEMU's connection")?;
            qmp.get().await.context("QEMU does not speak QMP")?.restore().await?;
            let mut stdin = stdin.context("QEMU has no standard input")?;
            stdin.write_all(&saved.state).await.context("QEMU does not take the saved state")?;
            Ok(agent)
        });
        match resumed.await {
            Ok(agent) => self.agent = Some(agent),
            Err(Broken::Fault(error)) => return Err(self.ended_or(error).await),
            Err(broken) => return Err(broken),
        }
        Ok(())
    }

    /// Writes the machine's state beside its memory. The guest stands still for good then.
    pub(super) async fn save(&mut self, deadline: Duration) -> Result<(), Broken> {
        let (qmp, state) = (&mut self.qmp, self.folder.join(STATE));
        race(&mut self.child, &mut self.watch, &mut self.cancel, deadline, async {
            qmp.get().await.context("QEMU does not speak QMP")?.save(STATE).await?;
            let written = async {
                while !state.exists() {
                    sleep(STATE_POLL).await;
                }
            };
            timeout(STATE_PATIENCE, written).await.context("the saved state could not be written")
        })
        .await
    }

    /// Time since QEMU was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A debugger may hold it for as long as it likes.
    #[must_use]
    pub fn is_debugged(&self) -> bool {
        self.watch.is_endless()
    }

    /// The part of its age that QEMU could not use: no processor was free for it, or it was stopped.
    pub fn lost(&mut self) -> Duration {
        self.watch.lost()
    }

    /// Waits for the agent's first word.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn hello(&mut self, deadline: Duration) -> Result<Reply, Broken> {
        let connect = CONNECT_DEADLINE.min(deadline);
        let listener = &self.agent_listener;
        let accepted = race(&mut self.child, &mut self.watch, &mut self.cancel, connect, async {
            listener.accept().await.context("cannot accept QEMU's connection")
        });
        self.agent = Some(accepted.await?.0);
        self.reply(deadline).await
    }

    /// Sends an order and waits for its reply.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn exchange(&mut self, order: &Order, deadline: Duration) -> Result<Reply, Broken> {
        if let Err(error) = self.send(order).await {
            return Err(self.ended_or(error).await);
        }
        self.reply(deadline).await
    }

    async fn send(&mut self, order: &Order) -> Result<()> {
        self.note("order", order)?;
        let mut bytes = Vec::new();
        write_frame(&mut bytes, order).context("cannot encode an order")?;
        let agent = self.agent.as_mut().context("the agent is not connected")?;
        agent.write_all(&bytes).await.context("cannot send an order to the guest")
    }

    async fn reply(&mut self, deadline: Duration) -> Result<Reply, Broken> {
        let agent =
            self.agent.as_mut().ok_or_else(|| Broken::Fault(anyhow::anyhow!("the agent is not connected")))?;
        let received = race(&mut self.child, &mut self.watch, &mut self.cancel, deadline, receive(agent)).await;
        let reply = match received {
            Err(Broken::Fault(error)) => return Err(self.ended_or(error).await),
            other => other?,
        };
        self.note("reply", &reply).map_err(Broken::Fault)?;
        Ok(reply)
    }

    /// The port closes when QEMU ends; how it ended says more than that.
    async fn ended_or(&mut self, error: anyhow::Error) -> Broken {
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => Broken::Ended(in_words(status)),
            _ => Broken::Fault(error),
        }
    }

    fn note<T: serde::Serialize>(&mut self, what: &str, message: &T) -> Result<()> {
        let line = serde_json::json!({ "ms": self.begun.elapsed().as_millis() as u64, what: message });
        writeln!(self.transcript, "{line}")
            .with_context(|| format!("cannot write {}", self.folder.join(TRANSCRIPT).display()))
    }

    /// What QEMU says of a guest that does not answer; empty when it says nothing either.
    pub async fn state(&mut self) -> String {
        match timeout(STOP_PATIENCE, self.qmp.get()).await {
            Ok(Some(qmp)) => qmp.status().await.unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The most memory QEMU has had in use, in KiB: VmHWM of proc(5). `None` when it is gone.
    #[must_use]
    pub fn peak_memory_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
    }

    /// Ends the VM: TERM, KILL, each bounded; then nothing of it is left but its files. Says how QEMU
    /// ended. The guest is not asked: what counts of it was unmounted before.
    pub async fn stop(mut self) -> String {
        let mut ended = self.ended_within(Duration::ZERO).await;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if ended.is_none() {
                self.signal(signal);
                ended = self.ended_within(STOP_PATIENCE).await;
            }
        }
        for socket in [AGENT_SOCKET, QMP_SOCKET, GDB_SOCKET, SHELL_SOCKET] {
            let _ = fs::remove_file(self.folder.join(socket));
        }
        match ended {
            Some(status) => in_words(status),
            None => format!("QEMU (process {:?}) survived SIGKILL", self.child.id()),
        }
    }

    async fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        timeout(patience, self.child.wait()).await.ok()?.ok()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Talk::Opening(task) = &self.qmp {
            task.abort();
        }
        self.signal(Signal::SIGKILL);
    }
}

/// Binds a socket in a folder whose path may be longer than the 108 bytes of a socket's address.
fn listen(folder: &Path, name: &str) -> Result<UnixListener> {
    let path = folder.join(name);
    let bind = || -> std::io::Result<UnixListener> {
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let directory = File::open(folder)?;
        UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
    };
    bind().with_context(|| format!("cannot listen on {}", path.display()))
}

/// Runs `work` against QEMU's end, the deadline and the user.
async fn race<T>(
    child: &mut Child,
    watch: &mut Watch,
    cancel: &mut Cancel,
    deadline: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Broken> {
    tokio::select! {
        biased;
        result = work => result.map_err(Broken::Fault),
        status = child.wait() => Err(match status {
            Ok(status) => Broken::Ended(in_words(status)),
            Err(error) => Broken::Fault(error.into()),
        }),
        // An error means that nobody can make the wish any more; then it is never made.
        Ok(_) = cancel.wait_for(|wish| *wish) => Err(Broken::Cancelled),
        () = watch.run_out(deadline) => Err(Broken::Deadline(deadline)),
    }
}

async fn receive(stream: &mut UnixStream) -> Result<Reply> {
    let len = stream.read_u32_le().await.context("the guest closed its port")? as usize;
    anyhow::ensure!(len <= MAX_FRAME_BYTES, "a frame of {len} bytes: the guest's stream is out of step");
    let mut bytes = vec![0u8; len];
    stream.read_exact(&mut bytes).await.context("the guest closed its port within a frame")?;
    serde_json::from_slice(&bytes).with_context(|| {
        let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        format!("a frame of the guest could not be understood: {text}")
    })
}

fn in_words(status: ExitStatus) -> String {
    status.to_string()
}
