//! The site's certificate authority, and enrolling with a control. It works on a folder, or asks a control
//! over TLS; `control/src/tls/README.md` has the walk.
//!
//! Exit codes: 0 done, 1 not done and why, 2 bad usage.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nautilus_control::roles::Role;
use nautilus_control::secret::Secret;
use nautilus_control::tls::authority::{Authority, request};
use nautilus_control::tls::enrolment::{enrol_at, renew_at};
use nautilus_control::tls::identity::{Identity, Kind};
use nautilus_control::tls::token::TOKEN_LIFETIME;
use nautilus_control::tls::{TlsError, pem};

/// Makes certificates for the nodes, people and controls of a site
#[derive(Parser)]
#[command(name = "nautilus-ca", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes an authority in a folder that has none
    Init {
        /// Folder of the authority
        dir: PathBuf,
        /// The site it speaks for; it stands in every certificate
        #[arg(long)]
        site: String,
    },
    /// Makes a key and its certificate here, both in one file
    Issue {
        /// Folder of the authority
        dir: PathBuf,
        #[command(flatten)]
        whom: Whom,
        /// Host name or address under which a control serves; may be repeated
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Days it is valid
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=397))]
        days: u64,
        /// Where to put it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Prints a token with which one node or person may enrol once, within 15 minutes
    Token {
        /// Folder of the authority
        dir: PathBuf,
        #[command(flatten)]
        whom: Whom,
    },
    /// Revokes a certificate; controls that read this folder refuse it within a second
    Revoke {
        /// Folder of the authority
        dir: PathBuf,
        /// Its serial number, as `list` prints it
        serial: String,
    },
    /// Prints what was issued
    List {
        /// Folder of the authority
        dir: PathBuf,
    },
    /// Enrols with a control: leaves identity.pem and ca.pem in a folder
    Enrol {
        /// HOST:PORT of the control
        control: String,
        /// Where the token is: file:PATH or env:NAME
        #[arg(long)]
        token: String,
        /// What enrols: node or person
        #[arg(long, value_parser = kind)]
        kind: Kind,
        /// Its name
        #[arg(long)]
        name: String,
        /// Folder of the files
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Puts a new key and certificate in the place of enrolled ones
    Renew {
        /// HOST:PORT of the control
        control: String,
        /// Folder of the files
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Whom {
    /// What it is for: node, person or control
    #[arg(long, value_parser = kind)]
    kind: Kind,
    /// Its name
    #[arg(long)]
    name: String,
    /// What it may do: viewer, operator or admin
    #[arg(long, value_parser = role)]
    role: Role,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::of(text).ok_or_else(|| "node, person or control".into())
}

fn role(text: &str) -> Result<Role, String> {
    Role::of(text).ok_or_else(|| "viewer, operator or admin".into())
}

impl Whom {
    fn identity(self, authority: &Authority) -> Result<Identity, TlsError> {
        let site = authority.site().to_owned();
        let identity = Identity { site, role: self.role, kind: self.kind, name: self.name };
        match Identity::parse(&identity.to_string()) {
            Some(identity) => Ok(identity),
            None => {
                let rule = nautilus_control::id::RULE;
                Err(TlsError::Refused(format!("name {:?}: {rule}", identity.name)))
            }
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nautilus-ca: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), TlsError> {
    match command {
        Command::Init { dir, site } => {
            let authority = Authority::init(&dir, &site)?;
            println!("{}", nautilus_control::audit::hex(&authority.fingerprint()));
        }
        Command::Issue { dir, whom, hosts, days, out } => {
            let authority = Authority::load(&dir)?;
            let identity = whom.identity(&authority)?;
            issue(&authority, &identity, &hosts, days, &out)?;
        }
        Command::Token { dir, whom } => {
            let authority = Authority::load(&dir)?;
            let identity = whom.identity(&authority)?;
            let token = authority.token(&identity, TOKEN_LIFETIME)?;
            println!("{}", String::from_utf8_lossy(token.expose()));
        }
        Command::Revoke { dir, serial } => {
            let gone = Authority::load(&dir)?.revoke(&serial)?;
            println!("{} {}", gone.serial, gone.identity);
        }
        Command::List { dir } => {
            for issued in Authority::load(&dir)?.issued()? {
                let state = if issued.revoked_s.is_some() { "revoked" } else { "valid" };
                let (serial, until) = (issued.serial, issued.not_after_s);
                println!("{serial} {state:<7} until {until} {}", issued.identity);
            }
        }
        Command::Enrol { control, token, kind, name, out } => {
            enrol_at(&control, &Secret::resolve(&token)?, kind, &name, &out)?;
        }
        Command::Renew { control, dir } => renew_at(&control, &dir)?,
    }
    Ok(())
}

fn issue(
    authority: &Authority,
    identity: &Identity,
    hosts: &[String],
    days: u64,
    out: &Path,
) -> Result<(), TlsError> {
    if identity.kind == Kind::Control && hosts.is_empty() {
        return Err(TlsError::Refused("a control needs --host: clients check it".into()));
    }
    let (key, request) = request()?;
    let chain = authority.issue(identity, hosts, &request, Duration::from_secs(days * 86_400))?;
    let both = zeroize::Zeroizing::new(format!("{}{chain}", *key));
    pem::replace(out, 0o600, both.as_bytes())
}
