import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// In development the data comes from a running drain.
const drain = process.env.TANDEM_DASHBOARD ?? "http://127.0.0.1:7411";

export default defineConfig({
  plugins: [react()],
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: {
    proxy: { "/api": { target: drain, changeOrigin: true, headers: { origin: drain } } },
  },
});
