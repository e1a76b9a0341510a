//! The sidecar as the operator has it: a configuration, a data directory, a process to start, signal and wait for.
//!
//! What always holds: no process outlives its test, however that ends; what each wrote to standard error lies in a
//! file, which is kept and named when the test fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use storage_tests::mounts::LoopDisk;
use tempfile::TempDir;

use super::receiver::Receiver;
use super::watchdog::Watchdog;
use super::wire::Client;

/// The key that the environment is known by.
pub(crate) const SDK_KEY: &str = "sidecar-test-sdk-key-0001";

/// Far more than anything here takes; reached only by what will never happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An address that nobody listens on. Its port lies below those that the system gives to outgoing connections: while a
/// sidecar is dead nobody else may come to sit on its port.
///
/// It is asked for, not bound: a process that another test starts at that moment has all that this one has open until
/// it becomes itself, and what is bound here would stay so after this has let go of it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test processes that run side by side start apart from each other.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(64).wrapping_add(step)) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("below 30,000")));
        if TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return address;
        }
    }
}

/// Where a sidecar lives: what stays from one of its lives to the next.
pub(crate) struct Home {
    name: String,
    dir: TempDir,
    ingest: SocketAddr,
    admin: SocketAddr,
    destinations: String,
    top: String,
    way_in: String,
    grpc: String,
    log: String,
    budget: &'static str,
    env: Vec<(String, String)>,
    without_env: Vec<&'static str>,
    /// Whether it says all that it can, and nobody reads it.
    unread: bool,
    lives: AtomicU32,
}

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        Self::on(&std::env::temp_dir(), name)
    }

    /// One whose files all lie there.
    pub(crate) fn on(place: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: tempfile::Builder::new().prefix("forebay-").tempdir_in(place).expect("there is room"),
            ingest: free_address(),
            admin: free_address(),
            destinations: String::new(),
            top: String::new(),
            way_in: String::new(),
            grpc: String::new(),
            log: String::new(),
            budget: "1GiB",
            env: Vec::new(),
            without_env: Vec::new(),
            unread: false,
            lives: AtomicU32::new(0),
        }
    }

    /// Has it log everything, into a pipe that nobody reads.
    pub(crate) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Adds a line to the top of the configuration.
    pub(crate) fn setting(mut self, line: &str) -> Self {
        self.top.push_str(line);
        self.top.push('\n');
        self
    }

    /// Adds a line to `[ingest]`.
    pub(crate) fn way_in(mut self, line: &str) -> Self {
        self.way_in.push_str(line);
        self.way_in.push('\n');
        self
    }

    /// Adds a line to `[grpc]`.
    pub(crate) fn grpc(mut self, line: &str) -> Self {
        self.grpc.push_str(line);
        self.grpc.push('\n');
        self
    }

    /// Sets a variable of the sidecar's process; the last word counts.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes variables from it that this process may have.
    pub(crate) fn without_env(mut self, names: &[&'static str]) -> Self {
        self.without_env.extend(names);
        self
    }

    /// Adds a line to `[log]`.
    pub(crate) fn log(mut self, line: &str) -> Self {
        self.log.push_str(line);
        self.log.push('\n');
        self
    }

    /// Sets what its log may take of the disk.
    pub(crate) fn budget(mut self, bytes: &'static str) -> Self {
        self.budget = bytes;
        self
    }

    /// Adds a webhook; `more` are further lines of its table.
    pub(crate) fn webhook(mut self, id: &str, receiver: &Receiver, more: &str) -> Self {
        self.destinations.push_str(&format!(
            "[[destinations]]\nid = \"{id}\"\nenvironments = [\"acme-prod\"]\ntype = \"webhook\"\nurl = \"{}\"\n\
             headers = {{ x-sidecar = \"{}\", x-life = \"env:FOREBAY_TEST_LIFE\" }}\n{more}\n",
            receiver.url(),
            self.name
        ));
        self
    }

    /// Adds a destination; `settings` are the lines of its table that make it what it is.
    pub(crate) fn destination(mut self, id: &str, settings: &str) -> Self {
        self.destinations
            .push_str(&format!("[[destinations]]\nid = \"{id}\"\nenvironments = [\"acme-prod\"]\n{settings}\n"));
        self
    }

    /// Adds a file destination; its files lie in the directory of that name.
    pub(crate) fn file(mut self, id: &str, more: &str) -> Self {
        self.destinations.push_str(&format!(
            "[[destinations]]\nid = \"{id}\"\nenvironments = [\"acme-prod\"]\ntype = \"file\"\n\
             directory = \"./{id}\"\n{more}\n"
        ));
        self
    }

    /// What its next life is told otherwise: each `from` in the destinations becomes `to`.
    pub(crate) fn change(&mut self, from: &str, to: &str) {
        assert!(self.destinations.contains(from), "{from:?} is a setting of some destination");
        self.destinations = self.destinations.replace(from, to);
    }

    pub(crate) fn ingest(&self) -> SocketAddr {
        self.ingest
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration to a file and names it.
    pub(crate) fn write_config(&self) -> PathBuf {
        self.write_config_of(self.ingest, self.admin, "grpc.sock", "forebay.toml")
    }

    /// The same sidecar, as far as its data goes, at other addresses.
    pub(crate) fn write_config_of_a_double(&self) -> PathBuf {
        self.write_config_of(free_address(), free_address(), "double.sock", "double.toml")
    }

    fn write_config_of(&self, ingest: SocketAddr, admin: SocketAddr, socket: &str, file: &str) -> PathBuf {
        let (top, log, destinations, socket) = (&self.top, &self.log, &self.destinations, self.path(socket));
        let (way_in, grpc, budget) = (&self.way_in, &self.grpc, self.budget);
        let text = format!(
            "{top}data_dir = \"./data\"\n[ingest]\nlisten = \"{ingest}\"\n{way_in}[admin]\nlisten = \"{admin}\"\n\
             [grpc]\nlisten = \"unix:{}\"\n{grpc}[log]\nsegment_bytes = \"1MiB\"\nbudget_bytes = \"{budget}\"\n{log}\
             [[environments]]\nid = \"acme-prod\"\nname = \"production\"\n\
             sdk_keys = [\"{SDK_KEY}\", \"browser-sdk-key-0001\"]\n{destinations}",
            socket.display()
        );
        let path = self.path(file);
        fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// Starts the sidecar, and does not wait for it.
    pub(crate) fn spawn(&self) -> Sidecar<'_> {
        self.spawn_as(forebay(&[]))
    }

    /// The same, to kill itself at this failpoint: with the tests' build, whatever binary all others have.
    pub(crate) fn spawn_to_die_at(&self, failpoint: &str) -> Sidecar<'_> {
        let mut command = Command::new(tests_build());
        command.env("FOREBAY_FAILPOINT", failpoint);
        self.spawn_as(command)
    }

    /// The same, by a command that is the binary, or becomes it.
    pub(crate) fn spawn_as(&self, mut command: Command) -> Sidecar<'_> {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let config = self.write_config();
        let stderr = self.path(&format!("stderr-{life:03}"));
        command.args(["run", "--config"]);
        self.without_env.iter().for_each(|name| _ = command.env_remove(name));
        if self.unread {
            command.env("FOREBAY_LOG", "trace").stderr(Stdio::piped());
        } else {
            command.stderr(File::create(&stderr).expect("the directory is ours"));
        }
        let child = command
            .arg(config)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("FOREBAY_TEST_LIFE", life.to_string())
            .env("FOREBAY_TEST_KEY", format!("key-of-life-{life}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary was built for this test");
        Sidecar { home: self, life: life as usize, watchdog: Watchdog::over(child.id()), child, stderr }
    }

    /// Starts the sidecar and returns when it is ready.
    pub(crate) fn start(&self) -> Sidecar<'_> {
        let mut sidecar = self.spawn();
        sidecar.wait_until_ready();
        // Whatever the life before left.
        sidecar.books();
        sidecar
    }

    /// The lines in the files of a file destination, oldest file first.
    pub(crate) fn lines(&self, id: &str) -> Vec<Value> {
        let directory = self.path(id);
        let mut files: Vec<_> = match fs::read_dir(&directory) {
            Ok(entries) => entries.map(|entry| entry.expect("readable").path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).expect("lines are UTF-8");
            assert!(text.is_empty() || text.ends_with('\n'), "the last line of {} is whole", file.display());
            lines.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|why| panic!("{why}: {line:?}"))),
            );
        }
        lines
    }

    /// The files of the data directory that hold these bytes.
    pub(crate) fn data_with(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let (mut found, mut dirs) = (Vec::new(), vec![self.path("data")]);
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("the directory is ours") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    dirs.push(path);
                } else if memchr::memmem::find(&fs::read(&path).expect("readable"), bytes).is_some() {
                    found.push(path);
                }
            }
        }
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("what sidecar {} left lies in {}", self.name, self.dir.path().display());
        }
    }
}

/// One life of a sidecar.
pub(crate) struct Sidecar<'h> {
    home: &'h Home,
    /// How many lives it had before.
    pub(crate) life: usize,
    child: Child,
    watchdog: Watchdog,
    stderr: PathBuf,
}

impl Sidecar<'_> {
    pub(crate) fn wait_until_ready(&mut self) {
        let ready = wait_for(|| self.try_ready());
        assert!(ready, "it is not ready after {PATIENCE:?}; it said:\n{}", self.said());
    }

    /// Whether it is ready. Panics if it is dead.
    fn try_ready(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("it ended by itself with {status}; it said:\n{}", self.said());
        }
        let answer = Client::connect(self.home.admin).and_then(|mut client| client.get("/readyz"));
        answer.and_then(|answer| answer.status()).is_ok_and(|status| status == 200)
    }

    /// Its number among the machine's processes.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("it ended by itself with {status}; it said:\n{}", self.said());
        }
        self.end();
    }

    /// The disk that its home lies on loses its power, and has it again when this returns.
    pub(crate) fn lose_power(mut self, disk: &LoopDisk) {
        disk.cut_under(self.child.id());
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("it ended by itself with {status}");
        }
        self.end();
        disk.power_up();
    }

    /// Waits for its end, and says by which signal that was. None if it goes on, or exits.
    pub(crate) fn ends_by(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for(|| {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.and_then(|status| status.signal())
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// SIGSTOP, and after this long SIGCONT.
    pub(crate) fn suspend(&self, time: Duration) {
        self.signal("STOP");
        thread::sleep(time);
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// One of the commands that call the operators' API.
    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        let address = format!("unix:{}", self.home.path("grpc.sock").display());
        forebay(arguments).args(["--address", &address]).output().expect("the binary was built")
    }

    /// The same, which has to succeed; with `--json`.
    pub(crate) fn asked(&self, arguments: &[&str]) -> Value {
        let output = self.call(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}; the sidecar said:\n{}", self.said());
        serde_json::from_slice(&output.stdout).expect("one line of JSON")
    }

    /// Waits until it has said this so many times.
    pub(crate) fn says(&self, words: &str, times: usize) {
        let said = wait_for(|| self.said().matches(words).count() >= times);
        assert!(said, "it did not say {words:?} {times} times:\n{}", self.said());
    }

    /// Waits for its end and returns the exit code. `None` if a signal ended it.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let mut status = None;
        wait_for(|| {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        let Some(status) = status else { panic!("it runs after {PATIENCE:?}; it said:\n{}", self.said()) };
        status.code()
    }

    fn end(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
        self.watchdog.dismiss();
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = self.said();
            let lines: Vec<_> = said.lines().rev().take(20).collect();
            eprintln!("the last words of sidecar {}, life {}:", self.home.name, self.life);
            lines.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
        self.end();
    }
}

/// The binary under test: that of `FOREBAY_BINARY` (a path from `/`), such as a release's, or the one built with the tests.
pub(crate) fn binary() -> OsString {
    std::env::var_os("FOREBAY_BINARY").unwrap_or_else(|| tests_build().into())
}

/// Puts a copy of it there. By a process of its own: what this one has open a process that another test starts meanwhile
/// has too, and nobody can execute a file that anybody may write to.
pub(crate) fn copy_binary(to: &Path) {
    let copied = Command::new("cp").arg("-p").arg(binary()).arg(to).status().expect("it is everywhere");
    assert!(copied.success(), "there is room");
}

/// The one built with the tests, which alone has failpoints.
fn tests_build() -> &'static str {
    env!("CARGO_BIN_EXE_forebay")
}

/// The binary with these arguments.
pub(crate) fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// `forebay check` or `forebay run` on a configuration that will not start, to its end.
pub(crate) fn to_its_end(command: &str, config: &Path) -> Output {
    forebay(&[command, "--config"]).arg(config).stdin(Stdio::null()).output().expect("the binary was built")
}

/// Asks until the answer is yes; gives up after [`PATIENCE`].
pub(crate) fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if done() {
            return true;
        }
        if began.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
