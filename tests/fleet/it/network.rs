//! Hosts as network namespaces on a bridge of the test's own.
//!
//! They need root and a kernel that lets us. Where it does not, `TOOLYARD_FLEET_NO_NETNS=1` lets the tests that need
//! them end early, and `make fleet` then says what was not proven instead of writing the report.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A bridge with an address on this machine, and the hosts plugged into it.
pub(crate) struct Network {
    number: u32,
    subnet: [u8; 3],
    hosts: AtomicU32,
}

/// A host: a network namespace with one cable to the bridge, and nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    cable: String,
    address: IpAddr,
}

/// Whether this machine is said to have no network namespaces.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
pub(crate) fn forbidden() -> bool {
    std::env::var("TOOLYARD_FLEET_NO_NETNS").is_ok_and(|value| value == "1")
}

impl Network {
    /// Makes the bridge, after taking away what killed runs left.
    pub(crate) fn new() -> Self {
        sweep();
        let number = std::process::id();
        let byte = |value: u32| u8::try_from(value).expect("a remainder below 256");
        let network =
            Self { number, subnet: [10, byte(60 + number / 250 % 40), byte(number % 250)], hosts: AtomicU32::new(0) };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("{}/24", network.address()), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        network
    }

    fn bridge(&self) -> String {
        format!("tyb{}", self.number)
    }

    fn ip_of(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last).into()
    }

    /// This machine's address on it: where hosts reach the control plane.
    pub(crate) fn address(&self) -> IpAddr {
        self.ip_of(1)
    }

    /// Plugs in another host.
    pub(crate) fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let address = self.ip_of(u8::try_from(number + 10).expect("a few hosts"));
        let name = format!("tyh{}-{number}", self.number);
        let cable = format!("tyv{}-{number}", self.number);
        ip(&["netns", "add", &name]);
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["link", "set", &cable, "master", &self.bridge()]);
        ip(&["link", "set", &cable, "up"]);
        ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Host { name, cable, address }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.number);
    }
}

impl Host {
    /// A command that runs on this host. It becomes the program, so its process id is the program's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Not `ip netns exec`: that mounts another /sys, without the control groups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// The cable is pulled.
    pub(crate) fn cut(&self) {
        ip(&["link", "set", &self.cable, "down"]);
    }

    /// The cable is put back.
    pub(crate) fn heal(&self) {
        ip(&["link", "set", &self.cable, "up"]);
    }

    /// Its address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// From now on nothing leaves this host but answers from port `answers`, and what goes to port `reaches` elsewhere.
    pub(crate) fn forbid_dialling(&self, answers: u16, reaches: u16) {
        for (preference, what) in [
            ("10", &["ipproto", "tcp", "sport", &answers.to_string(), "lookup", "main"][..]),
            ("11", &["ipproto", "tcp", "dport", &reaches.to_string(), "lookup", "main"]),
            ("12", &["prohibit"]),
        ] {
            ip(&[&["-n", &self.name, "rule", "add", "pref", preference], what].concat());
        }
    }

    /// Every TCP connection whose own end is not at `port`: those that were dialled from here.
    pub(crate) fn dialled(&self, port: u16) -> Vec<String> {
        let own = format!("{}:{port}", self.address);
        self.sockets(&["-tnpH"]).into_iter().filter(|line| line.split_whitespace().nth(3) != Some(&own)).collect()
    }

    /// Every TCP socket that listens on this host, as `ss` says.
    pub(crate) fn listeners(&self) -> Vec<String> {
        self.sockets(&["-ltnpH"])
    }

    fn sockets(&self, which: &[&str]) -> Vec<String> {
        let output = self.command("ss").args(which).output().expect("ss runs");
        assert!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// Takes away everything of test processes that are gone.
fn sweep() {
    let output = Command::new("ip").args(["-o", "link", "show", "type", "bridge"]).output().expect("`ip` runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.lines().filter_map(|line| {
        let name = line.split(": ").nth(1)?;
        name.strip_prefix("tyb")?.parse::<u32>().ok()
    });
    for number in numbers.filter(|number| !crate::world::alive(*number)) {
        remove(number);
    }
}

fn remove(number: u32) {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("`ip` runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = format!("tyh{number}-");
    for name in text.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(&ours)) {
        let pids = Command::new("ip").args(["netns", "pids", name]).output().expect("`ip` runs");
        for pid in String::from_utf8_lossy(&pids.stdout).lines().filter_map(|line| line.trim().parse().ok()) {
            crate::world::signal(pid, "KILL");
        }
        let _ = Command::new("ip").args(["netns", "del", name]).status();
    }
    let _ = Command::new("ip").args(["link", "del", &format!("tyb{number}")]).status();
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("`ip` runs");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {args:?}: {why}\nThese tests need root and network namespaces; TOOLYARD_FLEET_NO_NETNS=1 goes without them."
    );
}
