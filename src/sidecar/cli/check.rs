//! `forebay check`: every mistake in a configuration, for a person or a pipeline. Starts nothing.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

mod outages;

use super::BAD_CONFIG;
use super::args::{ConfigArgs, LagArgs};
use crate::app;
use crate::config::{self, Config, Finding, GrpcConfig, Listen, render, tally};

/// Writes the findings to the standard output, and where its sidecar runs how long an outage of each environment's destinations the
/// disk holds. Warnings alone are success.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let (mut text, config, code) = judge(&args.config);
    if let Some(config) = config {
        text.push_str(&outages::of_the_sidecar_at(&config.grpc.listen));
    }
    // Whoever closed the pipe does not want to hear of it; the exit code still says it all.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// A configuration to start with. What is wrong with it goes to the standard error, warnings too.
///
/// # Errors
/// The code to exit with.
pub fn load(path: &Path) -> Result<Config, ExitCode> {
    let (config, findings) = read(path);
    let text = render(&path.display().to_string(), &findings);
    let _ = io::stderr().lock().write_all(text.as_bytes());
    config.ok_or(ExitCode::from(BAD_CONFIG))
}

/// Where the sidecar listens for operators. What is wrong with the configuration that should say it goes to the standard
/// error; only that one key is looked at, since the secrets of the others may be elsewhere.
///
/// # Errors
/// The code to exit with.
pub fn api_address(args: &LagArgs) -> Result<Listen, ExitCode> {
    api_at(args.address.as_ref(), args.config.as_deref())
}

/// The same, where it is given as an address or a file.
///
/// # Errors
/// The code to exit with.
pub fn api_at(address: Option<&Listen>, config: Option<&Path>) -> Result<Listen, ExitCode> {
    let Some(path) = config else {
        return Ok(address.cloned().unwrap_or(GrpcConfig::default().listen));
    };
    config::grpc_listen(path).map_err(|findings| {
        let text = render(&path.display().to_string(), &findings);
        let _ = io::stderr().lock().write_all(text.as_bytes());
        ExitCode::from(BAD_CONFIG)
    })
}

/// A configuration, and all that is wrong or odd about it: by itself, and in what would be made of it.
fn read(path: &Path) -> (Option<Config>, Vec<Finding>) {
    let (config, mut findings) = config::load(path);
    findings.extend(config.iter().flat_map(app::misplaced));
    (config, findings)
}

fn judge(path: &Path) -> (String, Option<Config>, u8) {
    let (config, findings) = read(path);
    let code = if config.is_some() { 0 } else { BAD_CONFIG };
    (report(path, config.as_ref(), &findings), config, code)
}

fn report(path: &Path, config: Option<&Config>, findings: &[Finding]) -> String {
    let file = path.display().to_string();
    let mut text = render(&file, findings);
    let verdict = match config {
        Some(config) => format!(
            "good ({}, {})",
            counted(config.environments.len(), "environment"),
            counted(config.destinations.len(), "destination")
        ),
        None => String::from("can't be used"),
    };
    let tally = tally(findings);
    let with = if tally.is_empty() { tally } else { format!(": {tally}") };
    text.push_str(&format!("{file}: {verdict}{with}\n"));
    text
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severity;

    #[test]
    fn the_last_line_is_the_verdict() {
        let path = Path::new("f.toml");
        let config = Config::default();
        assert_eq!(report(path, Some(&config), &[]), "f.toml: good (0 environments, 0 destinations)\n");
        let mut finding = Finding {
            severity: Severity::Warning,
            line: Some(3),
            path: "a.b".into(),
            message: "is odd".into(),
            remedy: "change it".into(),
        };
        assert_eq!(
            report(path, Some(&config), std::slice::from_ref(&finding)),
            "f.toml:3: warning: a.b: is odd\n    change it\nf.toml: good (0 environments, 0 destinations): 1 warning\n"
        );
        finding.severity = Severity::Error;
        assert!(report(path, None, &[finding]).ends_with("f.toml: can't be used: 1 error\n"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "as an operator writes it")]
    fn an_address_that_nothing_is_sent_to_is_odd() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("forebay.toml");
        let config = "data_dir = \"data\"\n[[environments]]\nid = \"prod\"\nsdk_keys = [\"a-key-of-prod\"]\n[[destinations]]\nid = \"hook\"\n\
                      environments = [\"prod\"]\ntype = \"webhook\"\nurl = \"http://169.254.169.254/x\"\n";
        std::fs::write(&path, config).unwrap();
        let (text, config, code) = judge(&path);
        assert!(config.is_some() && code == 0, "{text}");
        assert!(text.contains("warning: destinations[hook].url: nothing is ever sent there"), "{text}");
    }

    #[test]
    fn a_configuration_that_cannot_be_used_exits_with_78() {
        let (text, _, code) = judge(Path::new("/nonexistent/forebay.toml"));
        assert_eq!(code, BAD_CONFIG);
        assert!(text.starts_with("/nonexistent/forebay.toml: error: can't be read: "), "{text}");
    }
}
