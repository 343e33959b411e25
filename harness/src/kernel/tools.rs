// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short commands: found before they are needed, run without the user's environment, quoted when
//! they fail.
//!
//! Separate because the rule that nothing of the user's shell leaks into a build (MAKEFLAGS, CFLAGS,
//! ARCH, a git hook) must hold for each command of this stage.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use xshell::{Cmd, Shell};

/// Variables a tool may see: where programs, the user's home and temporary files are. Everything
/// else of the user's shell stays outside.
const KEPT: [&str; 3] = ["PATH", "HOME", "TMPDIR"];

/// The environment every tool gets: the kept variables, and a language that programs can parse.
pub(super) fn clean_env() -> Vec<(&'static str, std::ffi::OsString)> {
    let kept = KEPT.iter().filter_map(|&name| env::var_os(name).map(|value| (name, value)));
    kept.chain([("LC_ALL", "C".into())]).collect()
}

/// A shell that stands in `dir`.
pub(super) fn shell(dir: &Path) -> Result<Shell> {
    let shell = Shell::new().context("the current folder cannot be read")?;
    shell.change_dir(dir);
    Ok(shell)
}

/// A command without the user's environment.
pub(super) fn clean<'a>(shell: &'a Shell, program: &str) -> Cmd<'a> {
    shell.cmd(program).env_clear().envs(clean_env())
}

/// Git on a repository of ours: no configuration, hooks, signatures or prompts of the user, and a
/// fixed identity and date, so that the same series gives the same commits.
pub(super) fn git<'a>(shell: &'a Shell) -> Cmd<'a> {
    const SETTINGS: [&str; 6] = [
        "core.hooksPath=/dev/null",
        "commit.gpgSign=false",
        "core.autocrlf=false",
        "gc.auto=0",
        "init.defaultBranch=holdfast",
        "advice.mergeConflict=false",
    ];
    let cmd = clean(shell, "git")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Holdfast")
        .env("GIT_AUTHOR_EMAIL", "holdfast@localhost")
        .env("GIT_COMMITTER_NAME", "Holdfast")
        .env("GIT_COMMITTER_EMAIL", "holdfast@localhost")
        .env("GIT_AUTHOR_DATE", "@0 +0000")
        .env("GIT_COMMITTER_DATE", "@0 +0000");
    SETTINGS.iter().fold(cmd, |cmd, setting| cmd.arg("-c").arg(setting))
}

/// Git that only reads a repository of the user: with the user's own settings (which folders are
/// trusted, which files are ignored everywhere), but never writing, not even an index refresh.
pub(super) fn git_reader<'a>(shell: &'a Shell, tree: &Path) -> Cmd<'a> {
    // A person who builds as root builds a tree of their own: reading it runs nothing of it.
    let safe = format!("safe.directory={}", tree.display());
    clean(shell, "git")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", &safe, "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false", "-C"])
        .arg(tree)
}

/// Runs a command and gives its standard output.
///
/// # Errors
/// When it does not start or ends with a failure: the command and what it said.
pub(super) fn read(cmd: Cmd<'_>) -> Result<Vec<u8>> {
    let quoted = cmd.to_string();
    let output = try_run(cmd)?;
    if !output.status.success() {
        bail!("`{quoted}` failed ({}): {}", output.status, said(&output));
    }
    Ok(output.stdout)
}

/// Runs a command whose failure is a result.
pub(super) fn try_run(cmd: Cmd<'_>) -> Result<Output> {
    let quoted = cmd.to_string();
    cmd.quiet().ignore_status().output().with_context(|| format!("`{quoted}` could not be run"))
}

/// Standard output as text, trimmed.
pub(super) fn read_text(cmd: Cmd<'_>) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(cmd)?).trim().to_owned())
}

/// What a command said, on one or a few lines: standard error, or standard output when that is empty.
pub(super) fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    text.trim().to_owned()
}

/// Runs commands with each one's standard output as the next one's input.
pub(super) fn pipeline(commands: Vec<Command>) -> Result<()> {
    let count = commands.len();
    let mut children = Vec::new();
    let mut input = Stdio::null();
    for (index, mut command) in commands.into_iter().enumerate() {
        let program = show(command.get_program());
        let output = if index + 1 < count { Stdio::piped() } else { Stdio::null() };
        command.env_clear().envs(clean_env()).stdin(input).stdout(output);
        let mut child = command.spawn().with_context(|| format!("{program} could not be run"))?;
        input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
        children.push((program, child));
    }
    let mut failed = Vec::new();
    for (program, mut child) in children {
        let status = child.wait().with_context(|| format!("{program} was lost"))?;
        if !status.success() {
            failed.push(format!("{program} failed ({status})"));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow!(failed.join(", "))) }
}

/// First line of `PROGRAM --version`.
pub(super) fn version_line(program: &str) -> Result<String> {
    let shell = shell(Path::new("/"))?;
    let text = read_text(clean(&shell, program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A path as text for a message or a key.
pub(super) fn show(path: impl AsRef<OsStr>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_quoted() {
        let shell = shell(Path::new("/")).unwrap();
        let error = read(clean(&shell, "sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_pipeline_names_what_failed() {
        let mut first = Command::new("sh");
        first.args(["-c", "exit 3"]);
        let error = pipeline(vec![first, Command::new("cat")]).unwrap_err().to_string();
        assert!(error.contains("sh failed"), "{error}");
    }
}
