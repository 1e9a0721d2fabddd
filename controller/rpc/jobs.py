"""`JobService`: orders come in, jobs are read and followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Row

from controller.jobs import standing_views
from controller.jobs.desk import JobDesk
from controller.jobs.reading import Wanted
from controller.jobs.signing import Signed
from controller.jobs.views import JobView, RolloutView, Told
from controller.jobs.watching import Changed
from controller.rpc.interceptor import Context, operator_calling
from protocol.codec import from_ms, to_ms
from protocol.order import Signature
from protocol.rollout import render_amount, render_batches
from protocol.v1 import job_pb2 as pb
from protocol.v1 import link_pb2
from protocol.v1.job_pb2_grpc import JobServiceServicer

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 1000
AT_ONCE = 200
"""Tasks that take about a millisecond to be put into a message."""
MESSAGES = 2 * 1024 * 1024
"""Characters of the messages of a job's tasks together: four bytes each fit into an answer."""


class Jobs(JobServiceServicer):
    """See `protocol/v1/job.proto`."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    async def SubmitOrder(
        self, request: pb.SubmitOrderRequest, context: Context
    ) -> pb.SubmitOrderResponse:
        """See `protocol/v1/job.proto`."""
        view = await self._desk.submit(
            request.envelope, operator_calling(), propose=request.propose
        )
        return pb.SubmitOrderResponse(job=await _told(view))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """See `protocol/v1/job.proto`."""
        views = await self._desk.list(
            operator_calling(),
            Wanted(
                tenant=request.tenant_id,
                machine=request.machine_id,
                state=request.state,
                operator=request.operator,
                since=from_ms(request.since_ms) if request.since_ms else None,
                before=request.before_job_id,
                standing=request.standing_order_id,
                action=request.action,
                with_runs=request.with_runs,
            ),
            limit=min(request.limit or DEFAULT_LIMIT, LARGEST_LIMIT),
            told=Told.BRIEF if request.brief else Told.COUNTED if request.counted else Told.ALL,
        )
        return pb.ListJobsResponse(jobs=[await _told(view) for view in views])

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """See `protocol/v1/job.proto`."""
        view = await self._desk.view(
            request.job_id,
            operator_calling(),
            machine=request.machine_id,
            with_results=not request.without_results,
            with_output=request.with_output,
        )
        return pb.GetJobResponse(job=await _told(view), output=map(output_to_pb, view.output))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """See `protocol/v1/job.proto`."""
        async for row in self._desk.watch(request.job_id, operator_calling()):
            if isinstance(row, Changed):
                yield pb.WatchJobResponse(task=task_to_pb(row.task, row.result))
            elif isinstance(row, RolloutView):
                yield pb.WatchJobResponse(rollout=rollout_to_pb(row))
            else:
                yield pb.WatchJobResponse(output=output_to_pb(row))

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """See `protocol/v1/job.proto`."""
        view = await self._desk.cancel(request.job_id, operator_calling())
        return pb.CancelJobResponse(job=await _told(view))

    async def ResumeJob(
        self, request: pb.ResumeJobRequest, context: Context
    ) -> pb.ResumeJobResponse:
        """See `protocol/v1/job.proto`."""
        view = await self._desk.resume(request.job_id, operator_calling())
        return pb.ResumeJobResponse(job=await _told(view))

    async def ApproveJob(
        self, request: pb.ApproveJobRequest, context: Context
    ) -> pb.ApproveJobResponse:
        """See `protocol/v1/job.proto`."""
        given = Signature(request.certificate, request.signature)
        view = await self._desk.approve(request.job_id, given, operator_calling())
        return pb.ApproveJobResponse(job=await _told(view))

    async def RejectJob(
        self, request: pb.RejectJobRequest, context: Context
    ) -> pb.RejectJobResponse:
        """See `protocol/v1/job.proto`."""
        view = await self._desk.reject(request.job_id, operator_calling(), request.reason)
        return pb.RejectJobResponse(job=await _told(view))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        """See `protocol/v1/job.proto`."""
        envelope = await self._desk.envelope(request.job_id, operator_calling())
        return pb.GetOrderResponse(envelope=envelope)

    async def ListStanding(
        self, request: pb.ListStandingRequest, context: Context
    ) -> pb.ListStandingResponse:
        """See `protocol/v1/job.proto`."""
        page = await self._desk.standing(
            operator_calling(),
            standing_views.Wanted(
                tenant=request.tenant_id,
                order=request.order_id,
                machines=tuple(request.machine_ids),
                name=request.name,
                before=request.before_order_id,
                with_ended=request.with_ended,
            ),
        )
        return pb.ListStandingResponse(
            orders=map(standing_to_pb, page.orders), go_on_before=page.go_on_before
        )


async def _told(view: JobView) -> pb.Job:
    """A job with its tasks; thousands are put together where they keep nobody waiting."""
    if len(view.tasks) <= AT_ONCE:
        return job_to_pb(view)
    return await asyncio.to_thread(job_to_pb, view)


def job_to_pb(view: JobView) -> pb.Job:
    """A job with its tasks."""
    order = view.signed.order if view.signed else None
    longest = MESSAGES // max(1, len(view.tasks))
    return pb.Job(
        job_id=view.job.id,
        tenant_id=view.job.tenant_id,
        action=view.job.action,
        summary=view.job.summary,
        operator=view.job.operator,
        submitted_at_ms=to_ms(view.job.submitted_at),
        deliver_by_ms=to_ms(view.job.deliver_by),
        reason=view.job.reason,
        tasks=[task_to_pb(task, longest=longest) for task in view.tasks],
        rollout=None if view.rollout is None else rollout_to_pb(view.rollout),
        windows=order.windows if order else (),
        catch_up=order.catch_up if order else False,
        retry_of=(order.retry_of or "") if order else "",
        signers=_signers(view.signed) if view.signed else (),
        signatures_missing=view.signed.missing if view.signed else 0,
        standing_order_id=view.job.standing_id or "" if view.job.slot is not None else "",
        standing=bool(order and order.standing and view.job.slot is None),
        states=view.states,
    )


def _signers(signed: Signed) -> list[pb.JobSigner]:
    return [
        pb.JobSigner(name=one.identity.name, role=one.identity.role.value, proposed=proposed)
        for proposed, some in ((True, signed.proposed), (False, signed.counted))
        for one in some
    ]


def standing_to_pb(view: standing_views.StandingView) -> pb.StandingOrder:
    """A standing order with its machines."""
    return pb.StandingOrder(
        order_id=view.order.id,
        tenant_id=view.order.tenant_id,
        name=view.order.name,
        action=view.order.action,
        summary=view.order.summary,
        operator=view.order.operator,
        reason=view.order.reason,
        submitted_at_ms=to_ms(view.order.submitted_at),
        schedule=view.order.schedule,
        ends_at_ms=to_ms(view.order.ends_at),
        max_runs=view.order.max_runs,
        deliver_by_ms=to_ms(view.order.deliver_by),
        machines=[
            pb.StandingMachine(
                machine_id=one.machine,
                machine_name=one.name,
                state=one.state,
                message=one.message,
                taken_in_at_ms=to_ms(one.taken_in_at),
                runs=one.runs,
                last_run_at_ms=to_ms(one.last_run_at),
                last_state=one.last_state,
                last_job_id=one.last_job,
                next_run_at_ms=to_ms(one.next_run_at),
            )
            for one in view.machines
        ],
        counts=view.counts,
    )


def rollout_to_pb(view: RolloutView) -> pb.RolloutStatus:
    """How a rollout stands."""
    terms = view.terms
    return pb.RolloutStatus(
        phase=view.course.phase.value,
        reason=view.course.reason,
        batch=view.course.batch + 1,
        batches=len(terms.batches) if terms else 0,
        soaked_at_ms=to_ms(view.course.soaked_at),
        batch_sizes=render_batches(terms.batches) if terms else "",
        soak_s=terms.soak_s if terms else 0,
        max_failures=render_amount(terms.max_failures) if terms else "",
    )


def task_to_pb(row: Row[Any], result: bytes = b"", *, longest: int = MESSAGES) -> pb.Task:
    """A task. `result` is for a row that was read without its own; `longest` of its message."""
    message = row.message or ""
    return pb.Task(
        task_id=row.id,
        machine_id=row.machine_id,
        machine_name=row.machine_name,
        state=row.state,
        code=row.code or "",
        message=message if len(message) <= longest else f"{message[:longest]}…",
        exit_code=row.exit_code or 0,
        result=getattr(row, "result", b"") or result,
        started_at_ms=to_ms(row.started_at),
        ended_at_ms=to_ms(row.ended_at),
        output_truncated=bool(row.output_truncated),
    )


def output_to_pb(row: Row[Any]) -> link_pb2.TaskOutput:
    """A piece of output."""
    return link_pb2.TaskOutput(
        task_id=row.task_id,
        sequence=row.seq,
        stream=link_pb2.OutputStream.Value(f"OUTPUT_STREAM_{row.stream.upper()}"),
        data=row.data,
    )
