// A client of the service. Every type comes from its OpenAPI document; only what is sent is written here.
import type { components, paths } from "./schema";

export type Submit = components["schemas"]["WorkflowSubmitRequest"];
export type Accepted = components["schemas"]["WorkflowSubmitResponse"];
export type Job = components["schemas"]["JobDetail"];
export type JobsPage = components["schemas"]["JobsListResponse"];
export type JobsQuery = NonNullable<paths["/api/v1/jobs"]["get"]["parameters"]["query"]>;
export type ErrorDetail = components["schemas"]["ErrorDetail"];
export type WebhookBody = components["schemas"]["WebhookBody"];

/** An error of the service: `detail.error` is its code, `detail.message` says what is allowed. */
export class ServiceError extends Error {
  constructor(
    readonly status: number,
    readonly detail: ErrorDetail,
  ) {
    super(`${detail.error}: ${detail.message}`);
  }
}

export class LLMService {
  constructor(
    private readonly base: string,
    private readonly secret: string,
  ) {}

  /** Safe to call again with the same key: the job is made once, and the first answer comes again. */
  submit(job: Submit, idempotencyKey: string): Promise<Accepted> {
    return this.call<Accepted>("/api/v1/workflow", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey },
      body: JSON.stringify(job),
    });
  }

  list(query: JobsQuery = {}): Promise<JobsPage> {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) search.set(name, String(value));
    return this.call<JobsPage>(`/api/v1/jobs?${search}`);
  }

  job(jobId: string): Promise<Job> {
    return this.call<Job>(`/api/v1/jobs/${encodeURIComponent(jobId)}`);
  }

  private async call<Answer>(path: string, init: RequestInit = {}): Promise<Answer> {
    const headers = new Headers(init.headers);
    headers.set("X-API-Secret", this.secret);
    const answer = await fetch(this.base + path, { ...init, headers });
    const body: unknown = await answer.json();
    if (!answer.ok) {
      throw new ServiceError(answer.status, (body as components["schemas"]["ErrorResponse"]).detail);
    }
    return body as Answer;
  }
}

/** Reads a webhook. Check its signature over the text first. */
export function readWebhook(text: string): string {
  const body = JSON.parse(text) as WebhookBody;
  switch (body.event) {
    case "workflow.completed":
      return body.result_truncated ? `read it at ${body.result_url}` : JSON.stringify(body.result);
    case "workflow.failed":
      return `${body.error_code}: ${body.error_message}`;
    case "workflow.cancelled":
      return `cancelled for ${body.username ?? "nobody"}`;
  }
}
