import { LLMService, ServiceError } from "./client.js";

/** Submits a job and lists what this user did in the last seven days. */
export async function askForContacts(service: LLMService): Promise<string[]> {
  // One key for one intention: keep it, and send it again when the answer did not arrive.
  const key = crypto.randomUUID();
  try {
    await service.submit(
      {
        workflow_name: "emergency_contacts",
        input_data: { location: "Brno", notes: "My sister Anna Novak (+420 777 123 456) lives nearby." },
        username: "jane_smith",
        action: "generate contacts",
      },
      key,
    );
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error; // the network: try again with the same key
    return [error.detail.error, ...(error.detail.valid_values ?? [])];
  }
  const page = await service.list({ username: "jane_smith", limit_results: "7 Days" });
  return page.jobs.map((job) => `${job.action}: ${job.status}`);
}
