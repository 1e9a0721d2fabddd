"""`EnrollmentService`: the door for those who have no certificate yet, or an old one."""

from __future__ import annotations

from controller.authority.admission import read_signing_request
from controller.authority.desk import Desk
from controller.authority.enrollment import Application
from controller.rpc.interceptor import Context
from protocol.v1 import enrollment_pb2 as pb
from protocol.v1.enrollment_pb2_grpc import EnrollmentServiceServicer


class Enrollment(EnrollmentServiceServicer):
    """See `protocol/v1/enrollment.proto`."""

    def __init__(self, desk: Desk, link_address: str) -> None:
        self._desk = desk
        self._link_address = link_address

    async def Enroll(self, request: pb.EnrollRequest, context: Context) -> pb.EnrollResponse:
        """See `protocol/v1/enrollment.proto`."""
        enrolled = await self._desk.enroll(
            Application(
                token_id=request.token_id,
                secret=request.token_secret,
                public_key=read_signing_request(request.signing_request),
                hostname=request.hostname,
                agent_version=request.agent_version,
            )
        )
        return pb.EnrollResponse(
            machine_id=enrolled.identity.machine,
            tenant_id=enrolled.identity.tenant,
            name=enrolled.name,
            certificate_chain=enrolled.chain,
            sealed_bundle=enrolled.sealed_bundle,
            link_address=self._link_address,
        )

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        """See `protocol/v1/enrollment.proto`."""
        chain = await self._desk.renew(
            certificate=request.certificate,
            requested_at_ms=request.requested_at_ms,
            signature=request.signature,
        )
        return pb.RenewResponse(certificate_chain=chain)

    async def Rekey(self, request: pb.RekeyRequest, context: Context) -> pb.RekeyResponse:
        """See `protocol/v1/enrollment.proto`."""
        made = await self._desk.rekey(
            certificate=request.certificate,
            requested_at_ms=request.requested_at_ms,
            signature=request.signature,
            signing_request=request.signing_request,
            holder=request.holder,
            hostname=request.hostname,
            agent_version=request.agent_version,
        )
        return pb.RekeyResponse(
            machine_id=made.identity.machine, name=made.name, certificate_chain=made.chain
        )
