"""Between the wire's policies and our records; see `protocol.codec`."""

from __future__ import annotations

from cryptography import x509

from protocol.codec import from_ms, read_message, to_ms
from protocol.errors import Code, InvalidError, SteadError
from protocol.ids import TenantId, check_id
from protocol.policy import Policy, Rule, SignedPolicy, check_signed_policy, checked_policy
from protocol.v1 import policy_pb2

MAX_POLICY_BYTES = 64 * 1024


def encode_policy(policy: Policy) -> bytes:
    """The bytes that the root signs."""
    return policy_pb2.Policy(
        tenant_id=policy.tenant,
        version=policy.version,
        issued_at_ms=to_ms(policy.issued_at),
        rules=[
            policy_pb2.PolicyRule(
                subject=one.subject,
                forbid=one.forbid,
                roles=one.roles,
                second_above=one.second_above,
                longest_days=one.longest_days,
            )
            for one in policy.rules
        ],
    ).SerializeToString(deterministic=True)


def decode_policy(data: bytes) -> Policy:
    """Read what the root signed; `SteadError` when it cannot be."""
    message = read_message(policy_pb2.Policy, data)
    return Policy(
        TenantId(check_id("tn", message.tenant_id)),
        message.version,
        from_ms(message.issued_at_ms),
        tuple(
            Rule(
                one.subject,
                one.forbid,
                tuple(one.roles),
                one.second_above if one.HasField("second_above") else None,
                one.longest_days,
            )
            for one in message.rules
        ),
    )


def encode_signed_policy(signed: SignedPolicy) -> bytes:
    """A signed policy as it travels."""
    return policy_pb2.SignedPolicy(
        policy=signed.policy, signature=signed.signature
    ).SerializeToString(deterministic=True)


def read_policy(data: bytes, root: x509.Certificate, *, tenant: TenantId) -> Policy:
    """Read a tenant's policy that anybody may have sent.

    BAD_SIGNATURE when this root did not sign these very bytes, WRONG_TENANT when it signed
    them for another tenant, `SteadError` when what it signed cannot be understood.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise InvalidError(f"a policy has at most {MAX_POLICY_BYTES} bytes")
    message = read_message(policy_pb2.SignedPolicy, data)
    check_signed_policy(SignedPolicy(message.policy, message.signature), root)
    policy = checked_policy(decode_policy(message.policy))
    if policy.tenant != tenant:
        raise SteadError("the policy is another tenant's", code=Code.WRONG_TENANT)
    return policy
