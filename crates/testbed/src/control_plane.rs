//! The command lines of etcd, the API server, its controllers and the simulated kubelets.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::binaries::Binaries;
use crate::credentials::Credentials;
use crate::ports::Ports;
use crate::process::Spec;

/// The ports and files that the programs share.
#[derive(Debug)]
pub(crate) struct ControlPlane<'a> {
    pub dir: &'a Path,
    pub binaries: &'a Binaries,
    pub credentials: &'a Credentials,
    pub api_port: u16,
    /// Requests per second of the controller manager.
    pub controller_qps: u32,
}

impl ControlPlane<'_> {
    /// etcd and the API server, which waits for etcd by itself.
    pub fn api(&self, ports: &mut Ports) -> Result<Vec<Spec>> {
        let client = format!("http://127.0.0.1:{}", ports.take()?);
        let peer = format!("http://127.0.0.1:{}", ports.take()?);
        let etcd = vec![
            format!("--data-dir={}", self.dir.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Nothing here has to survive a power cut.
            "--unsafe-no-fsync".into(),
            // One member elects itself: no reason to wait a second for it.
            "--heartbeat-interval=50".into(),
            "--election-timeout=250".into(),
            "--log-level=warn".into(),
        ];
        Ok(vec![self.spec("etcd", etcd), self.spec("kube-apiserver", self.api_server(&client)?)])
    }

    fn api_server(&self, etcd: &str) -> Result<Vec<String>> {
        let policy = self.dir.join("audit-policy.yaml");
        fs::write(&policy, include_str!("../assets/audit-policy.yaml"))?;
        let file = |name| self.credentials.file(name);
        Ok(vec![
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // There is no node network on which the `kubernetes` Service could be reached.
            "--endpoint-reconciler-type=none".into(),
            format!("--secure-port={}", self.api_port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            // Unused, but the other programs complain every few seconds when it is missing.
            format!("--requestheader-client-ca-file={}", file("ca.crt")),
            "--requestheader-allowed-names=nobody".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.dir.join("audit.log").display()),
            // The referee must see every line: written before the answer, never rotated.
            "--audit-log-mode=blocking".into(),
            "--audit-log-maxsize=1000000".into(),
        ])
    }

    /// Everything that talks to a ready API server.
    pub fn controllers(&self, ports: &mut Ports) -> Result<Vec<Spec>> {
        Ok(vec![
            self.spec("kube-controller-manager", self.controller_manager(ports.take()?)?),
            self.spec("kube-scheduler", self.scheduler(ports.take()?)?),
            self.spec("kwok", self.kwok()?),
        ])
    }

    fn controller_manager(&self, port: u16) -> Result<Vec<String>> {
        let kubeconfig = self.credentials.static_kubeconfig("system:kube-controller-manager")?;
        let kubeconfig = kubeconfig.display();
        Ok(vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            "--leader-elect=false".into(),
            // Every controller under its own name in the audit log.
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", self.credentials.file("sa.key")),
            format!("--root-ca-file={}", self.credentials.file("ca.crt")),
            // At the defaults 100 workloads of 3 pods take 4 times as long.
            format!("--kube-api-qps={}", self.controller_qps),
            format!("--kube-api-burst={}", self.controller_qps * 2),
            // Nodes do not die here; a starved machine must not make pods unready.
            "--node-monitor-grace-period=600s".into(),
            "--concurrent-deployment-syncs=10".into(),
            "--concurrent-replicaset-syncs=10".into(),
            "--concurrent-statefulset-syncs=10".into(),
            "--profiling=false".into(),
        ])
    }

    fn scheduler(&self, port: u16) -> Result<Vec<String>> {
        let kubeconfig = self.credentials.static_kubeconfig("system:kube-scheduler")?;
        let config = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig, "qps": 2000, "burst": 4000},
            "leaderElection": {"leaderElect": false},
            "enableProfiling": false,
        });
        let path = self.dir.join("scheduler.yaml");
        fs::write(&path, config.to_string())?;
        Ok(vec![
            format!("--config={}", path.display()),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
        ])
    }

    fn kwok(&self) -> Result<Vec<String>> {
        let config = self.dir.join("kwok.yaml");
        crate::stages::write_config(&config, self.binaries)?;
        Ok(vec![
            format!("--kubeconfig={}", self.credentials.static_kubeconfig("system:kwok")?.display()),
            format!("--config={}", config.display()),
            "--manage-all-nodes=true".into(),
            "--cidr=10.64.0.1/12".into(),
            "--node-ip=10.0.0.1".into(),
        ])
    }

    fn spec(&self, program: &str, args: Vec<String>) -> Spec {
        Spec {
            name: program.to_owned(),
            program: self.binaries.path(program),
            args,
            env: Vec::new(),
            dir: self.dir.to_owned(),
        }
    }
}
