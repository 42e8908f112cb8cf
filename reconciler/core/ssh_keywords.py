"""Which options ssh_config knows (ssh_config(5), OpenSSH 9.2), and which of them the built-in SSH honours. Pure."""

from __future__ import annotations

# Without Host, Match and Include, which are no options of one connection.
_KEYWORDS = """
    AddKeysToAgent AddressFamily BatchMode BindAddress BindInterface CanonicalDomains CanonicalizeFallbackLocal
    CanonicalizeHostname CanonicalizeMaxDots CanonicalizePermittedCNAMEs CASignatureAlgorithms CertificateFile
    ChallengeResponseAuthentication CheckHostIP Ciphers ClearAllForwardings Compression ConnectionAttempts
    ConnectTimeout ControlMaster ControlPath ControlPersist DynamicForward EnableEscapeCommandline EnableSSHKeysign
    EscapeChar ExitOnForwardFailure FingerprintHash ForkAfterAuthentication ForwardAgent ForwardX11
    ForwardX11Timeout ForwardX11Trusted GatewayPorts GlobalKnownHostsFile GSSAPIAuthentication GSSAPIClientIdentity
    GSSAPIDelegateCredentials GSSAPIKexAlgorithms GSSAPIKeyExchange GSSAPIRenewalForcesRekey GSSAPIServerIdentity
    GSSAPITrustDns HashKnownHosts HostbasedAcceptedAlgorithms HostbasedAuthentication HostKeyAlgorithms HostKeyAlias
    Hostname IdentitiesOnly IdentityAgent IdentityFile IgnoreUnknown KbdInteractiveAuthentication
    KbdInteractiveDevices KexAlgorithms KnownHostsCommand LocalCommand LocalForward LogLevel LogVerbose
    NoHostAuthenticationForLocalhost NumberOfPasswordPrompts PasswordAuthentication PermitLocalCommand
    PermitRemoteOpen PKCS11Provider PreferredAuthentications ProxyCommand ProxyJump ProxyUseFdpass
    PubkeyAcceptedAlgorithms PubkeyAuthentication RekeyLimit RemoteCommand RemoteForward RequestTTY RequiredRSASize
    RevokedHostKeys SecurityKeyProvider SendEnv ServerAliveCountMax ServerAliveInterval SessionType StdinNull
    StreamLocalBindMask StreamLocalBindUnlink StrictHostKeyChecking SyslogFacility Tag TCPKeepAlive TunnelDevice
    UpdateHostKeys UserKnownHostsFile VerifyHostKeyDNS VisualHostKey XAuthLocation
"""
# The rest means nothing to the built-in SSH, or is a key of its own in `[hosts]`, or is never wanted (forwarding).
_BUILT_IN = """
    AddressFamily BindAddress CanonicalDomains CanonicalizeFallbackLocal CanonicalizeHostname CanonicalizeMaxDots
    CanonicalizePermittedCNAMEs CASignatureAlgorithms CertificateFile Ciphers Compression HostKeyAlias Hostname
    IdentitiesOnly IdentityAgent IdentityFile KexAlgorithms MACs Port PreferredAuthentications ProxyCommand
    ProxyJump RekeyLimit ServerAliveCountMax ServerAliveInterval TCPKeepAlive User UserKnownHostsFile
"""
KEYWORDS = frozenset(_KEYWORDS.split())
BUILT_IN = frozenset(_BUILT_IN.split())
_BY_LOWER_CASE = {word.lower(): word for word in KEYWORDS}


def known(word: str) -> str | None:
    """The keyword as the manual writes it; upper and lower case do not matter to ssh."""
    return _BY_LOWER_CASE.get(word.lower())
