//! The daemon's listeners, all behind the same guard, and the watch on its certificates.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;

use crate::access::{Access, guarded};
use crate::api::{self, Managers};
use crate::audit::{Actor, Auditor, Entry, Outcome};
use crate::peer::Peer;
use crate::security::Security;
use crate::tls::authority::Authority;
use crate::tls::listener::{LocalListener, PlainListener, TlsListener};
use crate::tls::renewal::renew_own;
use crate::tls::server::ServerTls;

/// How often certificates are looked at. Too low: reading files; too high: a revoked certificate goes on.
const LOOK: Duration = Duration::from_secs(1);

/// Listeners that are open, and what they answer.
pub struct Server {
    routes: Router,
    access: Arc<Access>,
    authority: Option<Arc<Authority>>,
    tcp: tokio::net::TcpListener,
    local: Option<tokio::net::UnixListener>,
}

impl Server {
    /// Opens what the configuration names.
    pub async fn open(
        managers: Managers,
        listen: SocketAddr,
        security: &Security,
    ) -> anyhow::Result<Self> {
        security
            .check_listen(listen)
            .map_err(|reason| anyhow::anyhow!("control.listen: {reason}"))?;
        let auditor = security.audit.clone().map(Auditor::open).transpose()?;
        let tls = security.tls.clone().map(ServerTls::open).transpose()?.map(Arc::new);
        let authority = security.authority.as_deref().map(Authority::load).transpose()?;
        let authority = authority.map(Arc::new);
        let routes = api::router(managers, authority.clone());
        let access = Arc::new(Access { auditor, tls, local: security.local.clone() });
        let tcp = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening on {listen}"))?;
        let local = security.socket.as_deref().map(bind).transpose()?;
        let routes = guarded(routes, Arc::clone(&access));
        Ok(Self { routes, access, authority, tcp, local })
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> anyhow::Result<String> {
        let scheme = if self.access.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.tcp.local_addr()?))
    }

    /// Answers until an error. `say` prints a line for the operator.
    pub async fn run(self, say: fn(&str)) -> anyhow::Result<()> {
        let Self { routes, access, authority, tcp, local } = self;
        if access.auditor.is_none() {
            say("there is no [control.audit]: what is changed here is not recorded");
        }
        let service = routes.into_make_service_with_connect_info::<Peer>();
        if let Some(local) = local {
            let service = service.clone();
            tokio::spawn(async move { axum::serve(LocalListener(local), service).await });
        }
        match access.tls.clone() {
            Some(tls) => {
                tokio::spawn(watch(Arc::clone(&access), Arc::clone(&tls), authority, say));
                let listener = TlsListener::new(tcp, tls, access.auditor.clone());
                axum::serve(listener, service).await
            }
            None => axum::serve(PlainListener(tcp), service).await,
        }
        .context("serving HTTP")
    }
}

/// Takes a socket over that nobody answers any more.
fn bind(path: &Path) -> anyhow::Result<tokio::net::UnixListener> {
    let what = || format!("listening on {}", path.display());
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{}: another process answers there", what());
    }
    if path.exists() {
        std::fs::remove_file(path).with_context(what)?;
    }
    let listener = tokio::net::UnixListener::bind(path).with_context(what)?;
    // Everybody may connect: the kernel says who it is, and the table what that one may.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).with_context(what)?;
    Ok(listener)
}

/// Reads certificates again when they change; what cannot be read leaves those that are.
async fn watch(
    access: Arc<Access>,
    tls: Arc<ServerTls>,
    authority: Option<Arc<Authority>>,
    say: fn(&str),
) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let renewed = match &authority {
            Some(authority) => renew_own(authority, tls.files()).map(drop),
            None => Ok(()),
        };
        let (outcome, reason) = match renewed.and_then(|()| tls.reload()) {
            Ok(false) => {
                said.clear();
                continue;
            }
            Ok(true) => {
                said.clear();
                say("certificates were replaced: new connections have the new ones");
                (Outcome::Done, String::new())
            }
            Err(error) => {
                let text = error.to_string();
                if said == text {
                    continue;
                }
                say(&format!("certificates stay as they are: {text}"));
                said.clone_from(&text);
                (Outcome::Failed, text)
            }
        };
        if let Some(auditor) = &access.auditor {
            let entry = Entry {
                actor: Actor { kind: "control", ..Actor::default() },
                verb: "reload".into(),
                object: "tls".into(),
                outcome,
                request_id: String::new(),
                reason,
            };
            if let Err(error) = auditor.record(entry).await {
                say(&error.to_string());
            }
        }
    }
}
