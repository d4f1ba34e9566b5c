//! Certificates, tokens and kubeconfig files of one cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// Cluster administrators with a static token; the names keep them apart in the audit log.
const ADMINISTRATORS: [&str; 3] = ["admin", "system:testbed", "system:kwok"];
/// Users with a static token for whom RBAC has bootstrap roles.
const COMPONENTS: [&str; 2] = ["system:kube-controller-manager", "system:kube-scheduler"];
const MASTERS: &str = "system:masters";

/// The files with which the API server proves who it is and knows who others are.
#[derive(Debug)]
pub(crate) struct Credentials {
    dir: PathBuf,
    server: String,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

impl Credentials {
    /// Writes everything the API server needs to start.
    pub fn create(dir: &Path, port: u16) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (issuer, ca) = authority()?;
        fs::write(dir.join("ca.crt"), &ca)?;
        let (certificate, key) = server_certificate(&issuer)?;
        fs::write(dir.join("server.crt"), certificate)?;
        fs::write(dir.join("server.key"), key)?;
        let tokens = KeyPair::generate()?;
        fs::write(dir.join("sa.key"), tokens.serialize_pem())?;
        fs::write(dir.join("sa.pub"), tokens.public_key_pem())?;
        fs::write(dir.join("tokens.csv"), token_file())?;
        Ok(Self { dir: dir.to_owned(), server: format!("https://127.0.0.1:{port}"), issuer, ca })
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes a kubeconfig of a user with a static token.
    pub fn static_kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let path = self.path_for(user);
        self.write_token_kubeconfig(&path, user, &static_token(user))?;
        Ok(path)
    }

    /// Writes a kubeconfig with this token and nothing else.
    pub fn write_token_kubeconfig(&self, path: &Path, user: &str, token: &str) -> Result<()> {
        self.write_kubeconfig(path, user, &json!({"token": token}))
    }

    /// Writes a kubeconfig of a new administrator with a client certificate, which needs no restart of the API server.
    pub fn administrator_kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, MASTERS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let path = self.path_for(user);
        let login = json!({
            "client-certificate-data": ByteString(certificate.into_bytes()),
            "client-key-data": ByteString(key.serialize_pem().into_bytes()),
        });
        self.write_kubeconfig(&path, user, &login)?;
        Ok(path)
    }

    fn path_for(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{}.kubeconfig", user.replace(':', "-")))
    }

    fn write_kubeconfig(&self, path: &Path, user: &str, login: &Value) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": {
                "server": self.server,
                "certificate-authority-data": ByteString(self.ca.clone().into_bytes()),
            }}],
            "users": [{"name": user, "user": login}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
            "current-context": "testbed",
        });
        // JSON is YAML.
        fs::write(path, serde_json::to_vec_pretty(&config)?)?;
        Ok(())
    }
}

fn static_token(user: &str) -> String {
    format!("testbed-{user}")
}

fn token_file() -> String {
    let administrators =
        ADMINISTRATORS.iter().map(|user| format!("{},{user},{user},{MASTERS}\n", static_token(user)));
    let components = COMPONENTS.iter().map(|user| format!("{},{user},{user}\n", static_token(user)));
    administrators.chain(components).collect()
}

fn authority() -> Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "testbed-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

/// Certificate and key in PEM.
fn server_certificate(issuer: &Issuer<'static, KeyPair>) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok((certificate, key.serialize_pem()))
}
