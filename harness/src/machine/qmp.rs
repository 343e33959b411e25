// SPDX-License-Identifier: MIT OR Apache-2.0
//! QMP: it saves and restores machines, and tells where a hanging guest stands. No verdict depends on
//! it: a machine that cannot be restored is booted instead. An event the crate does not know ends the
//! stream, and that must not kill a run.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp::{MigrationCapability, MigrationCapabilityStatus, MigrationStatus};
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A negotiated connection.
pub(super) struct Qmp {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    /// No command completes unless the events are polled.
    events: JoinHandle<()>,
}

/// QEMU answers in microseconds unless it hangs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a save in progress is looked at; it takes 10 ms.
const POLL: Duration = Duration::from_millis(2);

impl Qmp {
    /// Negotiates on a connection QEMU made; `None` when that fails.
    pub(super) async fn open(stream: UnixStream) -> Option<Self> {
        let (read, write) = tokio::io::split(stream);
        let negotiation = QmpStreamTokio::open_split(read, write).await.ok()?;
        let (service, events) = negotiation.negotiate().await.ok()?.spawn_tokio();
        Some(Self { service, events })
    }

    /// Writes the machine's state, without memory that is shared with a file, into a file of QEMU's working
    /// directory. Afterwards the guest stands still for good.
    ///
    /// # Errors
    /// What QEMU said.
    pub(super) async fn save(&self, state: &str) -> Result<()> {
        self.ignore_shared().await?;
        // QEMU does not look at the status of what it writes into: the name says that all was written.
        let uri = Some(format!("exec:cat >{state}.part && mv {state}.part {state}"));
        let migrate = qapi::qmp::migrate { uri, channels: None, detach: None, resume: None };
        self.service.execute(migrate).await.context("migrate")?;
        loop {
            let info = self.service.execute(qapi::qmp::query_migrate {}).await.context("query-migrate")?;
            match info.status {
                Some(MigrationStatus::completed) => return Ok(()),
                Some(MigrationStatus::failed | MigrationStatus::cancelled) => {
                    bail!("QEMU could not save the machine: {}", info.error_desc.unwrap_or_default())
                }
                _ => sleep(POLL).await,
            }
        }
    }

    /// Takes the machine's state from QEMU's standard input.
    ///
    /// # Errors
    /// What QEMU said.
    pub(super) async fn restore(&self) -> Result<()> {
        self.ignore_shared().await?;
        let uri = Some("fd:0".to_owned());
        let incoming = qapi::qmp::migrate_incoming { uri, channels: None, exit_on_error: None };
        self.service.execute(incoming).await.context("migrate-incoming")?;
        Ok(())
    }

    /// Memory that is shared with a file is neither written to a state nor read from one: the file has it.
    async fn ignore_shared(&self) -> Result<()> {
        let capability =
            MigrationCapabilityStatus { capability: MigrationCapability::x_ignore_shared, state: true };
        let set = qapi::qmp::migrate_set_capabilities { capabilities: vec![capability] };
        self.service.execute(set).await.context("migrate-set-capabilities")?;
        Ok(())
    }

    /// What QEMU says of the guest: `running`, `paused`, `guest-panicked`.
    pub(super) async fn status(&self) -> Option<String> {
        let answer = timeout(PATIENCE, self.service.execute(qapi::qmp::query_status {})).await.ok()?.ok()?;
        Some(format!("{:?}", answer.status).to_lowercase())
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.events.abort();
    }
}
