//! Who agents are: how they join, renew their certificates, and are told from thieves.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use toolyard_link::tls::{self, PeerCertificate};
use toolyard_store::{JoinTokenRow, NewAudit, OrgTx, SystemTx, ToolboxRow};
use toolyard_types::agent::{AgentCertificate, CertificateRequest, JoinRequest};
use toolyard_types::{Code, OrganizationId, Timestamp, ToolboxId};

use super::agent_runs::{Asked, LONGEST_RUN, NAMELESS, Runs};
use crate::{Control, ControlError, Result, app};

/// How long after its end an agent's certificate can be renewed with its key.
const RENEWABLE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a link that may be made without the database waits for it: calls wait five seconds for a link that was lost.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The database is away when it has not told for so long which certificates are good; it is asked each second.
const AWAY_AFTER: Duration = Duration::from_secs(4);
/// How long a link of a run that nobody knows is left alone after the last change of its toolbox's known runs: that of an
/// agent that is gone has ended by then.
const LINK_LIFETIME: Duration = toolyard_link::LONGEST_SILENCE.saturating_add(Duration::from_secs(2));

/// An agent that was identified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent {
    pub(super) organization: OrganizationId,
    pub(super) toolbox: ToolboxId,
    /// The enrolment of its certificate; none in the same process.
    enrolment: Option<u64>,
}

impl Agent {
    /// Refuses a certificate that was revoked or replaced.
    pub(super) fn check(&self, enrolment: u64) -> Result<()> {
        if self.enrolment.is_some_and(|own| own != enrolment) { Err(revoked()) } else { Ok(()) }
    }
}

/// Nobody is there.
pub(crate) fn no_certificate() -> ControlError {
    ControlError::problem(Code::CertificateRequired, "only joining is possible without a certificate")
}

fn revoked() -> ControlError {
    let detail = "the certificate was revoked or replaced; start `toolyard dtma` with a new token to join again";
    ControlError::problem(Code::CertificateRevoked, detail)
}

/// Why there is no such toolbox. The agent of one that was removed ends what it runs. One that was never known may be known
/// to a newer copy of the database: what its agent runs must not end for that.
fn no_toolbox(was_removed: bool) -> ControlError {
    match was_removed {
        true => ControlError::problem(Code::ToolboxRemoved, "the toolbox was removed"),
        false => ControlError::problem(Code::CertificateRevoked, "the toolbox is not known here"),
    }
}

async fn missing(tx: &SystemTx, toolbox: ToolboxId) -> Result<ControlError> {
    Ok(no_toolbox(tx.toolbox_was_removed(toolbox).await?))
}

/// The same for who has read the organization's row.
pub(super) async fn gone(tx: &OrgTx, toolbox: ToolboxId) -> Result<ControlError> {
    Ok(no_toolbox(!tx.removed_toolboxes([toolbox]).await?.is_empty()))
}

/// Whose agent has this certificate.
///
/// # Errors
/// `certificate_revoked` when it was revoked or replaced, or has ended while its connection lasted; `toolbox_removed`.
pub(crate) async fn admit(control: &Control, certificate: &PeerCertificate) -> Result<Agent> {
    refuse_ended(control, certificate)?;
    identify(control, certificate).await
}

fn refuse_ended(control: &Control, certificate: &PeerCertificate) -> Result<()> {
    if control.clock().now() >= certificate.expires_at {
        return Err(ControlError::problem(Code::CertificateRevoked, "the certificate has ended"));
    }
    Ok(())
}

async fn identify(control: &Control, certificate: &PeerCertificate) -> Result<Agent> {
    let _turn = control.fleet().turn().await;
    let tx = control.store().system_read("identifying an agent").await?;
    let Some((organization, enrolment)) = tx.toolbox_enrolment(certificate.toolbox).await? else {
        return Err(missing(&tx, certificate.toolbox).await?);
    };
    let agent = Agent { organization, toolbox: certificate.toolbox, enrolment: Some(certificate.enrolment) };
    agent.check(enrolment)?;
    Ok(agent)
}

/// Whose toolbox in this process it is.
///
/// # Errors
/// `toolbox_removed`, or `certificate_revoked` when there never was such a toolbox.
pub(crate) async fn owner(control: &Control, toolbox: ToolboxId) -> Result<Agent> {
    let tx = control.store().system_read("finding an agent's toolbox").await?;
    let Some((organization, _)) = tx.toolbox_enrolment(toolbox).await? else {
        return Err(missing(&tx, toolbox).await?);
    };
    Ok(Agent { organization, toolbox, enrolment: None })
}

/// Gives the agent of a toolbox its first certificate, for a token that is good once. The same agent may ask again with
/// the same key: its answer may have been lost.
///
/// # Errors
/// `token_invalid`, `token_used`, `token_expired`, `token_foreign`, `validation_failed`, or when the store fails.
pub(crate) async fn join(
    control: &Control,
    request: JoinRequest,
    request_id: Option<String>,
) -> Result<AgentCertificate> {
    let (csr, key) = signing_request(&request.csr)?;
    let hash = crate::auth::token::sha256_hex(request.secret.expose());
    let tx = control.store().system("an agent joins").await?;
    let Some(token) = tx.join_token(&hash).await? else {
        tracing::warn!(toolbox.id = %request.toolbox, "an agent tried to join with a token that is not known");
        return Err(ControlError::problem(Code::TokenInvalid, "the join token is not known here"));
    };
    let mut tx = tx.into_org(token.organization);
    let Some(row) = tx.toolbox_by_id(token.toolbox).await? else {
        return Err(ControlError::problem(Code::TokenInvalid, "the toolbox that the token was for was removed"));
    };
    let enrolment = match usable(&token, &row, &request, &key, tx.now()) {
        Ok(Use::Again(enrolment)) => enrolment,
        Ok(Use::First) => match tx.raise_enrolment(row.id).await? {
            Some(enrolment) if tx.use_join_token(&hash, &key, enrolment).await? => enrolment,
            _ => return Err(ControlError::problem(Code::TokenUsed, "the join token was used a moment ago")),
        },
        Err(refusal) => {
            drop(tx);
            tracing::warn!(toolbox.name = %row.name, code = refusal.code().as_str(), "a join was refused");
            audit_join_refusal(control, &row, token.organization, &refusal, request_id).await;
            return Err(refusal);
        }
    };
    let certificate = certify(control, &tx, &row, enrolment, &csr).await?;
    tx.audit(&line(&row, true, json!({ "enrolment": enrolment, "key": key }), request_id)).await?;
    app::toolboxes::changed(&mut tx, &row);
    tx.commit().await?;
    control.fleet().note_enrolment(row.id, enrolment);
    tracing::info!(toolbox.name = %row.name, enrolment, "an agent joined");
    Ok(certificate)
}

/// How a join token is used.
enum Use {
    First,
    /// For this enrolment, by the key that used it first.
    Again(u64),
}

fn usable(token: &JoinTokenRow, row: &ToolboxRow, request: &JoinRequest, key: &str, now: Timestamp) -> Result<Use> {
    if token.toolbox != request.toolbox {
        return Err(ControlError::problem(Code::TokenForeign, "the join token is for another toolbox"));
    }
    match &token.used {
        Some((by, enrolment)) if by == key && *enrolment == row.enrolment && now < token.expires_at => {
            Ok(Use::Again(*enrolment))
        }
        Some(_) => Err(ControlError::problem(Code::TokenUsed, "the join token was used before")),
        None if now >= token.expires_at => {
            let detail = format!("the join token was good until {}", token.expires_at);
            Err(ControlError::problem(Code::TokenExpired, detail))
        }
        None => Ok(Use::First),
    }
}

/// Gives an agent that has a certificate the next one. One that has ended is good for this, and for nothing else, until
/// [`RENEWABLE`] has gone: a weekend without a control plane must not cost a new token for every host.
///
/// # Errors
/// `certificate_required`, `certificate_revoked`, `toolbox_removed`, `validation_failed`, or when the store fails.
pub(crate) async fn renew(
    control: &Control,
    certificate: Option<PeerCertificate>,
    request: &CertificateRequest,
) -> Result<AgentCertificate> {
    let (csr, _) = signing_request(&request.csr)?;
    let agent = match (certificate, &request.ended) {
        (Some(certificate), _) => admit(control, &certificate).await?,
        (None, Some(ended)) => admit_ended(control, ended, &csr).await?,
        (None, None) => return Err(no_certificate()),
    };
    let mut tx = control.store().org(agent.organization).await?;
    let Some(row) = tx.toolbox_by_id(agent.toolbox).await? else { return Err(gone(&tx, agent.toolbox).await?) };
    agent.check(row.enrolment)?;
    let certificate = certify(control, &tx, &row, row.enrolment, &csr).await?;
    app::toolboxes::changed(&mut tx, &row);
    tx.commit().await?;
    tracing::info!(toolbox.name = %row.name, until = %certificate.expires_at, "an agent renewed its certificate");
    Ok(certificate)
}

async fn admit_ended(control: &Control, certificate: &str, csr: &[u8]) -> Result<Agent> {
    let foreign = || {
        let detail = "must be a certificate of this Toolyard (DER) in base64url, for the key of the signing request";
        ControlError::field("ended", detail)
    };
    let certificate = URL_SAFE_NO_PAD.decode(certificate).map_err(|_| foreign())?;
    let certificate = control.authority().ended(&certificate, csr).map_err(|_| foreign())?;
    // First of all: that its toolbox was removed is told to an agent that was away for however long.
    let agent = identify(control, &certificate).await?;
    if control.clock().now() >= certificate.expires_at.plus(RENEWABLE) {
        return Err(ControlError::problem(
            Code::CertificateRevoked,
            "the certificate ended too long ago to be renewed",
        ));
    }
    Ok(agent)
}

fn signing_request(text: &str) -> Result<(Vec<u8>, String)> {
    let wrong = || ControlError::field("csr", "must be a signing request (PKCS #10, DER) in base64url");
    let csr = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let key = tls::requested_key(&csr).map_err(|_| wrong())?;
    Ok((csr, key))
}

async fn certify(
    control: &Control,
    tx: &OrgTx,
    row: &ToolboxRow,
    enrolment: u64,
    csr: &[u8],
) -> Result<AgentCertificate> {
    let now = tx.now();
    let expires_at = now.plus(control.options().agent_certificate);
    let certificate = control
        .authority()
        .issue_agent(csr, (row.id, enrolment), now, expires_at)
        .map_err(ControlError::internal("giving an agent a certificate"))?;
    tx.set_certificate_expiry(row.id, expires_at).await?;
    Ok(AgentCertificate {
        toolbox: row.id,
        name: row.name.clone(),
        certificate: URL_SAFE_NO_PAD.encode(certificate),
        renew_at: tls::renew_at(now, expires_at),
        expires_at,
    })
}

fn line(row: &ToolboxRow, done: bool, detail: serde_json::Value, request_id: Option<String>) -> NewAudit {
    NewAudit {
        actor: format!("toolbox:{}", row.id),
        actor_display: row.name.to_string(),
        action: "toolbox.join".to_owned(),
        target: format!("toolbox/{}", row.name),
        done,
        detail,
        request_id,
    }
}

async fn audit_join_refusal(
    control: &Control,
    row: &ToolboxRow,
    organization: OrganizationId,
    refusal: &ControlError,
    request_id: Option<String>,
) {
    let detail = json!({ "why": refusal.to_string(), "code": refusal.code().as_str() });
    let written = async {
        let mut tx = control.store().org(organization).await?;
        tx.audit(&line(row, false, detail, request_id)).await?;
        tx.commit().await
    };
    if let Err(error) = written.await {
        tracing::error!(error = &error as &dyn std::error::Error, "a refused join is missing in the audit log");
    }
}

/// Ends an identity that two agents use: its key was copied, and nobody can tell the owner from the thief. Seen
/// whichever replicas the two ask. An agent of an earlier version names no run; where another one did, that is a run too.
///
/// # Errors
/// `certificate_revoked` when two do, `toolbox_removed`, or when the store fails.
pub(crate) async fn one_at_a_time(control: &Control, agent: Agent, run: Option<&str>) -> Result<()> {
    let Some(enrolment) = agent.enrolment else { return Ok(()) };
    let _turn = control.fleet().turn().await;
    let known = control.store().system_read("reading who asks").await?.agent_runs(agent.toolbox).await?;
    let mut runs = Runs::read(known.as_deref(), enrolment);
    let run = run.filter(|run| !run.is_empty() && run.len() <= LONGEST_RUN);
    if run.is_none() && runs.is_empty() {
        return Ok(());
    }
    let run = run.unwrap_or(NAMELESS);
    if runs.note(run) == Asked::Current {
        return Ok(());
    }
    let mut tx = control.store().org(agent.organization).await?;
    let known = tx.lock_agent_runs(agent.toolbox).await?;
    let Some(row) = tx.toolbox_by_id(agent.toolbox).await? else { return Err(gone(&tx, agent.toolbox).await?) };
    agent.check(row.enrolment)?;
    let mut runs = Runs::read(known.as_deref(), enrolment);
    let asked = runs.note(run);
    if asked != Asked::Shared {
        tx.set_agent_runs(row.id, &runs.written()).await?;
        if asked == Asked::Changed {
            // The answer that another run waits for is given now: one that lives asks again, and is found.
            tx.bump_generation(row.id).await?;
        }
        return Ok(tx.commit().await?);
    }
    let Some(enrolment) = tx.raise_enrolment(row.id).await? else { return Err(gone(&tx, row.id).await?) };
    let why = "two agents use this toolbox's key; it was copied. Its certificates were revoked";
    tx.audit(&NewAudit { action: "toolbox.revoke".to_owned(), ..line(&row, true, json!({ "why": why }), None) })
        .await?;
    app::toolboxes::changed(&mut tx, &row);
    tx.commit().await?;
    end_before(control, row.id, enrolment);
    tracing::error!(toolbox.name = %row.name, "{why}");
    Err(revoked())
}

/// Ends what this process knows of a toolbox's certificates before this enrolment.
pub(super) fn end_before(control: &Control, toolbox: ToolboxId, enrolment: u64) {
    control.fleet().note_enrolment(toolbox, enrolment);
    control.links().close_ended(|other| if other == toolbox { Some(enrolment) } else { Some(0) });
}

/// How an agent may make a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkAdmission {
    /// The database was asked.
    Verified,
    /// By what was last read of it: it is away.
    Unverified,
}

/// Whether an agent may make a link. Calls go on without the database for as long as the gateway's snapshot may be old, so
/// an agent that was restarted or lost its link then needs to come back without it too: what was last read decides, for as
/// long. Whatever ended before that is refused; which run it is, [`look_up_links`] finds out later. While the database only
/// is busy the agent tries again: a run is not to get round being counted by making it so.
///
/// # Errors
/// `certificate_revoked`, `toolbox_removed`, or when the store fails, is busy, or not enough is known without it.
pub(crate) async fn admit_link(
    control: &Control,
    certificate: &PeerCertificate,
    run: Option<&str>,
) -> Result<LinkAdmission> {
    refuse_ended(control, certificate)?;
    if control.writes_work() {
        let asked = async {
            let agent = identify(control, certificate).await?;
            links(control, agent, run).await
        };
        let failed = match tokio::time::timeout(LOOKUP_TIMEOUT, asked).await {
            Ok(Ok(())) => return Ok(LinkAdmission::Verified),
            Ok(Err(error @ ControlError::Store(_))) => error,
            Ok(Err(refused)) => return Err(refused),
            Err(_) => ControlError::problem(Code::StoreUnavailable, "the database is busy; dial again"),
        };
        if !is_away(control, certificate) {
            return Err(failed);
        }
    }
    if !is_known(control, certificate) {
        let why = "the database is away, and what is known of this certificate is not enough without it";
        return Err(ControlError::problem(Code::StoreUnavailable, why));
    }
    tracing::warn!(toolbox.id = %certificate.toolbox, "a link is accepted without asking the database, which is away");
    Ok(LinkAdmission::Unverified)
}

/// Whether the database has not answered for a while.
fn is_away(control: &Control, certificate: &PeerCertificate) -> bool {
    let known = control.fleet().known_enrolment(certificate.toolbox, control.clock().now());
    !control.writes_work() || known.is_some_and(|(_, age)| age > AWAY_AFTER)
}

/// Whether a certificate was good when the database was last read, not too long ago.
fn is_known(control: &Control, certificate: &PeerCertificate) -> bool {
    let known = control.fleet().known_enrolment(certificate.toolbox, control.clock().now());
    known.is_some_and(|(good, age)| certificate.enrolment >= good && age <= control.options().snapshot_max_age)
}

/// Looks up the runs of links that were made without the database; tells how many are verified now. A run that nobody
/// knows is counted like one that asks once its link has outlived [`LINK_LIFETIME`]: one that has ended, counted after the
/// next run of the same agent, would look like a second agent.
///
/// # Errors
/// When the store fails.
pub(crate) async fn look_up_links(control: &Control) -> Result<usize> {
    let unverified = control.links().unverified();
    let mut looked_up = Vec::with_capacity(unverified.len());
    if !unverified.is_empty() {
        let toolboxes: BTreeSet<_> = unverified.iter().map(|link| link.certificate.toolbox).collect();
        let tx = control.store().system_read("looking up the runs of links").await?;
        let runs = tx.agent_runs_of(&toolboxes.into_iter().collect::<Vec<_>>()).await?;
        drop(tx);
        for link in unverified {
            let runs = runs.get(&link.certificate.toolbox).cloned();
            looked_up.push((link, runs));
        }
    }
    let ages = control.fleet().known_for(&looked_up);
    let mut verified = 0;
    for ((link, runs), age) in looked_up.iter().zip(ages) {
        let (run, certificate) = (link.run.as_deref(), &link.certificate);
        if !Runs::read(runs.as_deref(), certificate.enrolment).may_link(run) {
            if age < LINK_LIFETIME {
                continue;
            }
            let noted = match identify(control, certificate).await {
                Ok(agent) => links(control, agent, run).await,
                Err(error) => Err(error),
            };
            match noted {
                Ok(()) => {}
                Err(ControlError::Store(error)) => return Err(ControlError::Store(error)),
                // Whoever refused it has closed it, or does so in a moment.
                Err(_) => continue,
            }
        }
        control.links().verify(link);
        verified += 1;
    }
    Ok(verified)
}

/// Counts who makes a link as a run, so that a thief who only takes a toolbox's calls is found as soon as its agent asks. Of
/// a known run a link says nothing: what a former one had sent may arrive late.
///
/// # Errors
/// As [`one_at_a_time`].
pub(crate) async fn links(control: &Control, agent: Agent, run: Option<&str>) -> Result<()> {
    let Some(enrolment) = agent.enrolment else { return Ok(()) };
    let turn = control.fleet().turn().await;
    let known = control.store().system_read("reading who makes a link").await?.agent_runs(agent.toolbox).await?;
    drop(turn);
    if Runs::read(known.as_deref(), enrolment).may_link(run) {
        return Ok(());
    }
    one_at_a_time(control, agent, run).await
}
