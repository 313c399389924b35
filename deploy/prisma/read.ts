// Reads what was found and what it gave: an example of the client, and the test of it.
//
//   npm install --ignore-scripts && npm run generate
//   DATABASE_URL=postgresql://reader@host:5432/tandem npm run read
//
// `prisma generate` wants a schema engine only to migrate, which nobody does here: where its download is not to
// be had, PRISMA_SCHEMA_ENGINE_BINARY may name any executable file. The client itself needs no engine.
import { PrismaPg } from "@prisma/adapter-pg";

import { PrismaClient } from "./generated/client.ts";

const connectionString = process.env.DATABASE_URL;
if (!connectionString) {
  throw new Error("DATABASE_URL is not set: postgresql://USER@HOST:PORT/DATABASE");
}
const schema = process.env.TANDEM_SCHEMA ?? "tandem";
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString }, { schema }) });

const verdicts = await prisma.opportunities.groupBy({
  by: ["verdict"],
  _count: { _all: true },
  _max: { net: true },
  orderBy: { verdict: "asc" },
});
const best = await prisma.opportunities.findMany({
  where: { net: { not: null } },
  orderBy: [{ net: "desc" }, { seq: "asc" }],
  take: 5,
});
const days = await prisma.pnlDay.findMany({ orderBy: { day: "desc" }, take: 7 });
const fills = await prisma.fills.aggregate({ _count: { _all: true }, _sum: { qty: true } });

const report = {
  opportunities: verdicts.map((row) => ({
    verdict: row.verdict,
    count: row._count._all,
    net_max: row._max.net?.toFixed() ?? null,
  })),
  best: best.map((row) => ({
    first_at: row.first_at.toISOString(),
    path: row.path,
    net: row.net?.toFixed(),
    asset: row.asset,
    verdict: row.verdict,
  })),
  pnl: days.map((row) => ({
    day: row.day.toISOString().slice(0, 10),
    asset: row.asset,
    realised: row.realised.toFixed(),
    marked: row.marked.toFixed(),
    rounds: Number(row.rounds),
  })),
  fills: { count: fills._count._all, qty: fills._sum.qty?.toFixed() ?? "0" },
};
console.log(JSON.stringify(report));
await prisma.$disconnect();
