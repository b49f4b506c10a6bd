//! Who is who on our connections: the control plane's own CA, the certificates it gives, and TLS with them.
//!
//! Agents reach the control plane through NAT, proxies and names of every kind, so a server certificate names
//! neither a host nor an address: it names [`SERVER_NAME`], and an agent asks for that name whatever it dialled.
//! What an agent trusts is one CA, known by the SHA-256 of its certificate; the server sends that certificate along,
//! so a join token needs to carry 32 bytes only, and pinning at the join and afterwards is the same code.
//!
//! An agent's certificate names its toolbox and the *enrolment* it belongs to: a number that rises with every join
//! and revocation. So revoking is one number in one row, and no list of certificates is kept.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use toolyard_types::{Clock, ReplicaId, Secret, Timestamp, ToolboxId};

/// The name of every agent listener.
pub const SERVER_NAME: &str = "agents.toolyard.internal";

/// The CA's certificate outlives the installation; its key can be replaced only by enrolling anew.
const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const SERVER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far behind an agent's clock may be.
const BACKDATED: Duration = Duration::from_secs(3600);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What went wrong with a key or a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate cannot be made or read.
    #[error("{doing}")]
    Certificate {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No TLS session was made.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// The other side took too long.
    #[error("the TLS handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// The certificate is not of this CA, or not for this key.
    #[error("the certificate is not of this CA, or not for this key")]
    Foreign,
    /// The peer's certificate is from our CA and names neither a toolbox nor a replica.
    #[error("the certificate names no toolbox")]
    NoToolbox,
}

fn broken<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> TlsError {
    move |source| TlsError::Certificate { doing, source: source.into() }
}

/// The SHA-256 of some bytes, in hex.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_ms().div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// When two thirds of the time from `now` to `until` have gone: then a certificate is renewed.
#[must_use]
pub fn renew_at(now: Timestamp, until: Timestamp) -> Timestamp {
    now.plus(until.since(now) / 3 * 2)
}

/// The control plane's CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA: a P-256 key and a certificate signed with it.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn generate(now: Timestamp) -> Result<Self, TlsError> {
        let doing = "make the CA";
        let key = KeyPair::generate().map_err(broken(doing))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Toolyard agents");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = date(now.minus(BACKDATED));
        params.not_after = date(now.plus(CA_LIFETIME));
        let certificate = params.self_signed(&key).map_err(broken(doing))?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The CA of a stored certificate and key.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn open(certificate: &str, key: &Secret) -> Result<Self, TlsError> {
        let doing = "read the stored CA";
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(broken(doing))?;
        let key = KeyPair::from_pem(key.expose()).map_err(broken(doing))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(broken(doing))?;
        Ok(Self { issuer, certificate })
    }

    /// The certificate, for storing.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The key, for sealing.
    #[must_use]
    pub fn key_pem(&self) -> Secret {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// What agents know it by: the SHA-256 of the certificate, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// A certificate (DER) for an agent that proves to have the request's key. Nothing else of the request counts.
    ///
    /// # Errors
    /// When the request cannot be read, or was not signed with its own key.
    pub fn issue_agent(
        &self,
        csr: &[u8],
        (toolbox, enrolment): (ToolboxId, u64),
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<u8>, TlsError> {
        let doing = "give an agent a certificate";
        let request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(broken(doing))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, toolbox.to_string());
        let name = format!("{TOOLBOX_SCHEME}{toolbox}/{enrolment}");
        params.subject_alt_names = vec![SanType::URI(name.try_into().map_err(broken(doing))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date(now.minus(BACKDATED));
        params.not_after = date(until);
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(broken(doing))?;
        Ok(certificate.der().to_vec())
    }

    /// Reads an agent's certificate (DER) that need not be good any more, but was given by this CA for the key that
    /// signed the request.
    ///
    /// # Errors
    /// When it was not.
    pub fn ended(&self, certificate: &[u8], csr: &[u8]) -> Result<PeerCertificate, TlsError> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let doing = "read a certificate that has ended";
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(broken(doing))?;
        let (_, ca) = X509Certificate::from_der(&self.certificate).map_err(broken(doing))?;
        parsed.verify_signature(Some(ca.public_key())).map_err(|_| TlsError::Foreign)?;
        // The listener's own certificates are of this CA too, and name no toolbox.
        let peer = PeerCertificate::read(certificate)?;
        let request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(broken(doing))?;
        if parsed.public_key().subject_public_key.data.as_ref() != request.public_key.der_bytes() {
            return Err(TlsError::Foreign);
        }
        Ok(peer)
    }

    /// A key and its certificate (DER) for a replica of the control plane, which dials others with it. Both stay in the
    /// memory of whoever asks.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn issue_replica(
        &self,
        replica: ReplicaId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(AgentKey, Vec<u8>), TlsError> {
        let doing = "make a replica's certificate";
        let key = AgentKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, replica.to_string());
        let name = format!("{REPLICA_SCHEME}{replica}");
        params.subject_alt_names = vec![SanType::URI(name.try_into().map_err(broken(doing))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date(now.minus(BACKDATED));
        params.not_after = date(until);
        let certificate = params.signed_by(&key.0, &self.issuer).map_err(broken(doing))?;
        Ok((key, certificate.der().to_vec()))
    }

    fn issue_server(&self, now: Timestamp) -> Result<CertifiedKey, TlsError> {
        let doing = "make the agent listener's certificate";
        let key = KeyPair::generate().map_err(broken(doing))?;
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(broken(doing))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date(now.minus(BACKDATED));
        params.not_after = date(now.plus(SERVER_LIFETIME));
        let certificate = params.signed_by(&key, &self.issuer).map_err(broken(doing))?;
        certified(vec![certificate.der().clone(), self.certificate.clone()], &key)
    }
}

const TOOLBOX_SCHEME: &str = "toolyard://toolbox/";
const REPLICA_SCHEME: &str = "toolyard://replica/";

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(broken("use a key and its certificate"))
}

/// The fingerprint of the key that a signing request is for.
///
/// # Errors
/// When the request cannot be read, or was not signed with its own key.
pub fn requested_key(csr: &[u8]) -> Result<String, TlsError> {
    let request = CertificateSigningRequestParams::from_der(&csr.into()).map_err(broken("read a signing request"))?;
    Ok(fingerprint(request.public_key.der_bytes()))
}

/// An agent's own key.
pub struct AgentKey(KeyPair);

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey([redacted])")
    }
}

impl AgentKey {
    /// Makes a P-256 key.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn generate() -> Result<Self, TlsError> {
        KeyPair::generate().map(Self).map_err(broken("make a key"))
    }

    /// Reads a stored key.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(pem: &Secret) -> Result<Self, TlsError> {
        KeyPair::from_pem(pem.expose()).map(Self).map_err(broken("read the key"))
    }

    /// For storing where only its owner reads it.
    #[must_use]
    pub fn pem(&self) -> Secret {
        Secret::new(self.0.serialize_pem())
    }

    /// A certificate signing request (DER).
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn signing_request(&self) -> Result<Vec<u8>, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(broken("make a signing request"))?;
        Ok(request.der().to_vec())
    }

    pub(crate) fn certified(&self, certificate: &[u8]) -> Result<CertifiedKey, TlsError> {
        certified(vec![CertificateDer::from(certificate.to_vec())], &self.0)
    }
}

/// Who is at the other end of a connection to the agent listener, as its certificate says. Whether that enrolment is
/// still good is for whoever knows the toolbox's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Which toolbox.
    pub toolbox: ToolboxId,
    /// Which enrolment of it.
    pub enrolment: u64,
    /// When the certificate ends; the connection may last longer.
    pub expires_at: Timestamp,
}

impl PeerCertificate {
    /// Reads a certificate that TLS has verified.
    ///
    /// # Errors
    /// When it names no toolbox.
    pub fn read(certificate: &[u8]) -> Result<Self, TlsError> {
        match PeerIdentity::read(certificate)? {
            PeerIdentity::Toolbox(certificate) => Ok(certificate),
            PeerIdentity::Replica(_) => Err(TlsError::NoToolbox),
        }
    }
}

/// A replica of the control plane at the other end, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaCertificate {
    /// Which one.
    pub replica: ReplicaId,
    /// When the certificate ends; the connection may last longer.
    pub expires_at: Timestamp,
}

/// Who is at the other end of a connection to the agent listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// The agent of a toolbox.
    Toolbox(PeerCertificate),
    /// Another replica of the control plane.
    Replica(ReplicaCertificate),
}

impl PeerIdentity {
    /// Reads a certificate that TLS has verified.
    ///
    /// # Errors
    /// When it names neither a toolbox nor a replica.
    pub fn read(certificate: &[u8]) -> Result<Self, TlsError> {
        use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(broken("read the peer's certificate"))?;
        let names = parsed.subject_alternative_name().ok().flatten().ok_or(TlsError::NoToolbox)?;
        let expires_at = Timestamp::from_ms(parsed.validity().not_after.timestamp().saturating_mul(1000));
        let name = |scheme| {
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix(scheme),
                _ => None,
            })
        };
        if let Some(replica) = name(REPLICA_SCHEME) {
            let replica = replica.parse().map_err(|_| TlsError::NoToolbox)?;
            return Ok(Self::Replica(ReplicaCertificate { replica, expires_at }));
        }
        let (toolbox, enrolment) =
            name(TOOLBOX_SCHEME).and_then(|name| name.split_once('/')).ok_or(TlsError::NoToolbox)?;
        Ok(Self::Toolbox(PeerCertificate {
            toolbox: toolbox.parse().map_err(|_| TlsError::NoToolbox)?,
            enrolment: enrolment.parse().map_err(|_| TlsError::NoToolbox)?,
            expires_at,
        }))
    }
}

/// The server's side of TLS: its certificate is made and renewed in memory, clients may have one of the same CA.
#[derive(Clone)]
pub struct Acceptor(tokio_rustls::TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// A connection of the server's side.
pub type AcceptedStream = tokio_rustls::server::TlsStream<TcpStream>;
/// A connection of the dialler's side.
pub type DialledStream = tokio_rustls::client::TlsStream<TcpStream>;

impl Acceptor {
    /// Makes the first certificate.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn new(authority: Arc<Authority>, clock: Clock) -> Result<Self, TlsError> {
        let doing = "set up TLS for agents";
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).map_err(broken(doing))?;
        let provider = Arc::new(default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(broken(doing))?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(broken(doing))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(Renewed::new(authority, clock)?));
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }

    /// Makes a TLS session on an accepted connection, and tells who is there: nobody before its first join.
    ///
    /// # Errors
    /// When there is no session in time, or the certificate names neither a toolbox nor a replica.
    pub async fn accept(&self, stream: TcpStream) -> Result<(AcceptedStream, Option<PeerIdentity>), TlsError> {
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.0.accept(stream)).await;
        let stream = accepted.map_err(|_| TlsError::Timeout)?.map_err(TlsError::Handshake)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = certificate.map(|certificate| PeerIdentity::read(certificate)).transpose()?;
        Ok((stream, peer))
    }
}

/// The listener's certificate, made again at a handshake when most of its time has gone.
struct Renewed {
    authority: Arc<Authority>,
    clock: Clock,
    current: ArcSwap<(Arc<CertifiedKey>, Timestamp)>,
}

impl Renewed {
    fn new(authority: Arc<Authority>, clock: Clock) -> Result<Self, TlsError> {
        let first = Self::issue(&authority, clock.now())?;
        Ok(Self { authority, clock, current: ArcSwap::from_pointee(first) })
    }

    fn issue(authority: &Authority, now: Timestamp) -> Result<(Arc<CertifiedKey>, Timestamp), TlsError> {
        Ok((Arc::new(authority.issue_server(now)?), renew_at(now, now.plus(SERVER_LIFETIME))))
    }
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed")
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.clock.now();
        if now >= self.current.load().1 {
            match Self::issue(&self.authority, now) {
                Ok(renewed) => self.current.store(Arc::new(renewed)),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "renew the listener's certificate")
                }
            }
        }
        Some(self.current.load().0.clone())
    }
}

/// The dialler's side of TLS: one CA is trusted, known by its fingerprint.
///
/// # Errors
/// When the cryptography fails.
pub(crate) fn client_config(
    ca: &str,
    certificate: Option<CertifiedKey>,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let doing = "set up TLS to the control plane";
    let provider = Arc::new(default_provider());
    let verifier = Pinned { ca: ca.to_ascii_lowercase(), provider: provider.clone() };
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(broken(doing))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match certificate {
        Some(certificate) => config.with_client_cert_resolver(Arc::new(Own(Arc::new(certificate)))),
        None => config.with_no_client_auth(),
    }))
}

/// Accepts what the CA of this fingerprint gave to [`SERVER_NAME`], and nothing else.
#[derive(Debug)]
struct Pinned {
    ca: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|it| fingerprint(it) == self.ca).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown())?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|_| unknown())?;
        inner.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The agent's certificate, sent whatever the server says it would accept.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_ended_is_known_only_with_its_own_key_and_of_its_own_ca() {
        let now = Clock::system().now();
        let (authority, stranger) = (Authority::generate(now).unwrap(), Authority::generate(now).unwrap());
        let (own, other) = (AgentKey::generate().unwrap(), AgentKey::generate().unwrap());
        let toolbox = ToolboxId::generate();
        let past = now.minus(Duration::from_secs(3 * 3600));
        let request = own.signing_request().unwrap();
        let certificate = authority.issue_agent(&request, (toolbox, 3), past, now.minus(BACKDATED)).unwrap();
        let known = authority.ended(&certificate, &request).unwrap();
        assert_eq!((known.toolbox, known.enrolment), (toolbox, 3));
        assert!(matches!(authority.ended(&certificate, &other.signing_request().unwrap()), Err(TlsError::Foreign)));
        assert!(matches!(stranger.ended(&certificate, &request), Err(TlsError::Foreign)));
        let reopened = Authority::open(&authority.certificate_pem(), &authority.key_pem()).unwrap();
        assert_eq!(reopened.fingerprint(), authority.fingerprint());
        assert!(reopened.ended(&certificate, &request).is_ok(), "a stored CA is the same");
    }
}
