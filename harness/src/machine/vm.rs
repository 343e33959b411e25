// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running VM: spawned, spoken to, stopped.
//!
//! The host binds its sockets before QEMU exists and QEMU connects to them. Every wait is raced
//! against QEMU's end, a deadline and the user. QEMU is a process group of its own and dies with
//! Holdfast even on SIGKILL: `setpriv` sets its parent-death signal before it becomes QEMU, and a
//! QEMU whose host is gone earlier than that finds nobody to connect to and ends by itself. The
//! signal fires when the spawning *thread* ends, so the runtime must be a single thread.

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::command::{AGENT_SOCKET, Ports, QMP_SOCKET, arguments};
use super::qmp::Qmp;
use super::{Machine, pmem_file};

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
    /// It took longer than this.
    Deadline(Duration),
    /// The user ended the run.
    Cancelled,
    /// The stream is out of step, or an order was refused.
    Fault(anyhow::Error),
}

/// A VM with its ports. Dropping it kills QEMU.
pub struct Vm {
    child: Child,
    agent: Option<UnixStream>,
    agent_listener: UnixListener,
    qmp: JoinHandle<Option<Qmp>>,
    folder: PathBuf,
    transcript: File,
    begun: Instant,
    cancel: Cancel,
}

/// File of the orders and replies, a JSON value a line.
pub(super) const TRANSCRIPT: &str = "transcript.jsonl";
/// QEMU's own output.
pub(super) const QEMU_LOG: &str = "qemu.log";

/// Each rung of the ladder that ends a VM.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// QEMU connects its sockets before it loads the kernel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

impl Vm {
    /// Starts QEMU in the case's folder, which gets the pmem files (those that are not there yet),
    /// the console and the transcript.
    ///
    /// # Errors
    /// When the folder cannot be used or QEMU cannot be run.
    pub fn spawn(machine: &Machine, folder: &Path, cancel: Cancel) -> Result<Self> {
        for device in &machine.pmem {
            let path = folder.join(pmem_file(device.place));
            // Sparse: only what the guest writes takes room.
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            file.and_then(|file| file.set_len(device.size_mib << 20))
                .with_context(|| format!("cannot make {}", path.display()))?;
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
            .args(arguments(machine, Ports::Host))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share QEMU's log")?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("cannot run choom, setpriv (util-linux) and {}", machine.qemu.display())
            })?;
        let qmp = tokio::spawn(async move {
            let (stream, _) = qmp_listener.accept().await.ok()?;
            Qmp::open(stream).await
        });
        Ok(Self {
            child,
            agent: None,
            agent_listener,
            qmp,
            folder: folder.to_owned(),
            transcript: create(TRANSCRIPT)?,
            begun: Instant::now(),
            cancel,
        })
    }

    /// Time since QEMU was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits for the agent's first word.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn hello(&mut self, deadline: Duration) -> Result<Reply, Broken> {
        let connect = CONNECT_DEADLINE.min(deadline);
        let listener = &self.agent_listener;
        let accepted = race(&mut self.child, &mut self.cancel, connect, async {
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
        let received = race(&mut self.child, &mut self.cancel, deadline, receive(agent)).await;
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
        match self.qmp().await {
            Some(qmp) => qmp.status().await.unwrap_or_default(),
            None => String::new(),
        }
    }

    async fn qmp(&mut self) -> Option<Qmp> {
        if !self.qmp.is_finished() {
            return None;
        }
        let spent = tokio::spawn(async { None });
        std::mem::replace(&mut self.qmp, spent).await.ok().flatten()
    }

    /// Ends the VM: power off, QMP quit, TERM, KILL, each bounded; then nothing of it is left but
    /// its files. Says how QEMU ended.
    pub async fn stop(mut self) -> String {
        let asked = self.agent.is_some() && self.send(&Order::PowerOff).await.is_ok();
        let mut ended = if asked {
            self.ended_within(STOP_PATIENCE).await
        } else {
            self.ended_within(Duration::ZERO).await
        };
        if ended.is_none()
            && let Some(qmp) = self.qmp().await
        {
            qmp.quit().await;
            ended = self.ended_within(STOP_PATIENCE).await;
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if ended.is_none() {
                self.signal(signal);
                ended = self.ended_within(STOP_PATIENCE).await;
            }
        }
        for socket in [AGENT_SOCKET, QMP_SOCKET] {
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
        self.qmp.abort();
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
        () = sleep(deadline) => Err(Broken::Deadline(deadline)),
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
